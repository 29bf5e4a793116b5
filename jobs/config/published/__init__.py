"""Defines pretrainings of the literature by name, with the published numbers: `tilespin pretrain NAME`."""

from jobs.config.published.entry import Published
from jobs.config.published.joint_embedding import JOINT_EMBEDDING
from jobs.config.published.predictive import PREDICTIVE
from jobs.config.published.transformers import TRANSFORMERS

PUBLISHED: dict[str, Published] = {**PREDICTIVE, **JOINT_EMBEDDING, **TRANSFORMERS}
