"""The second factor, in and out."""

from pydantic import BaseModel, Field

from app.schemas.types import Text


class PasswordProof(BaseModel):
    """That whoever is signed in knows the password, too."""

    current_password: Text = Field(
        max_length=1000, examples=["correct horse battery"], json_schema_extra={"format": "password"}
    )


class CodeIn(BaseModel):
    """A code that the authenticator shows."""

    code: str = Field(max_length=64, examples=["123456"])


class TotpSecret(BaseModel):
    """What an authenticator app needs, in three forms."""

    secret: str = Field(description="To type in: base32.", examples=["JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"])
    uri: str = Field(
        description="To open on the device that has the app.",
        examples=["otpauth://totp/Social%20posts:ada%40example.com?secret=JBSWY3DPEHPK3PXP&issuer=Social%20posts"],
    )
    qr_svg: str = Field(description="To scan: an SVG element with the URI as a QR code.", examples=["<svg …></svg>"])


class RecoveryCodes(BaseModel):
    """Each stands in once for a code of the authenticator. They are shown this once."""

    recovery_codes: list[str] = Field(examples=[["k3tb-2vqz-7m4x-hq5w"]])


class TotpState(BaseModel):
    """Whether signing in asks for a second factor."""

    enabled: bool
    recovery_codes_left: int = Field(examples=[10])
