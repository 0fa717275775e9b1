"""`/readyz` and `/livez`, as every peer has them."""

from fastapi import APIRouter

router = APIRouter()


@router.get("/readyz")
async def get_readyz() -> dict[str, str]:
    return {"status": "ok"}
