"""The second factor, in and out."""

from pydantic import BaseModel, Field

from app.schemas.types import Text


class PasswordProof(BaseModel):
    """Your password, to confirm a sensitive change."""

    current_password: Text = Field(
        description="Your password.",
        max_length=1000,
        examples=["correct horse battery"],
        json_schema_extra={"format": "password"},
    )


class CodeIn(BaseModel):
    """A code of the authenticator app."""

    code: str = Field(description="The six digits that the app shows.", max_length=64, examples=["123456"])


class TotpSecret(BaseModel):
    """The secret for an authenticator app, in three forms."""

    secret: str = Field(description="To type in, in base32.", examples=["JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"])
    uri: str = Field(
        description="To open on the device with the app.",
        examples=["otpauth://totp/Social%20posts:ada%40example.com?secret=JBSWY3DPEHPK3PXP&issuer=Social%20posts"],
    )
    qr_svg: str = Field(description="To scan: an SVG element with the URI as a QR code.", examples=["<svg …></svg>"])


class RecoveryCodeList(BaseModel):
    """Codes that replace the authenticator app, for when it is lost.

    Returned only in this response.
    """

    recovery_codes: list[str] = Field(description="Each works once.", examples=[["k3tb-2vqz-7m4x-hq5w"]])


class TotpState(BaseModel):
    """Your two-factor authentication status."""

    enabled: bool = Field(description="Whether signing in needs a code.")
    recovery_codes_left: int = Field(description="Number of unused recovery codes.", examples=[10])
