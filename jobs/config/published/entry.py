"""Describes a pretraining of the literature."""

from dataclasses import dataclass

from jobs.config.recipe import PretrainConfig

IMAGENET = "imagenet"  # to be given with --data: nobody may pass it on


@dataclass(frozen=True, kw_only=True)
class Published:
    """Describes a pretraining as it was published, as far as the tasks here allow, and what to expect of it."""

    recipe: PretrainConfig
    source: str  # who published it, and where
    images: int  # of the dataset's training part
    macs: float  # that its encoder will have spent, forward and backward
    reaches: str  # the published number
    differs: str  # what is not as it was published

    @property
    def description(self) -> str:
        """Returns the help text: source, published numbers, cost, and what differs here."""
        cost = f"{self.macs:.2g} multiply-accumulates"
        return f"{self.source}. Published: {self.reaches}. Cost: {cost}. Here: {self.differs}."
