"""What a code says, and what the codes that begin alike are about."""

from dataclasses import dataclass

FAMILIES = {
    "GP1": "input and usage",
    "GP2": "why a dimension is not pruned",
    "GP3": "budgets and results",
    "GP4": "verification",
    "GP5": "plans, checkpoints and artifacts",
    "GP6": "torch.compile",
    "GP7": "calibration and recovery",
    "GP8": "sparsity and builds",
    "GP9": "internal",
}
"""What the codes that begin so are about."""


@dataclass(frozen=True)
class Code:
    """What one code means.

    title:  a few words, as a heading
    text:   what it means and why graphprune does it, for someone who meets it the first time
    remedy: what to do about it; the last line of an error that brings no better one
    """

    code: str
    title: str
    text: str
    remedy: str

    @property
    def family(self) -> str:
        """What codes of this kind are about, such as "input and usage"."""
        return FAMILIES[self.code[:3]]
