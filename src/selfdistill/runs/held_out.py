"""Held-out images without labels, whose targets are what the teacher gives for them."""

import torch
from lightning_fabric import Fabric
from torch import Tensor

from ..core import write_atomically
from ..data import EvalLoader, ImageData
from ..data.image_set import ImageSet
from ..engine.run_directory import RunDirectory
from ..recipe.build_run import RunComponents
from ..recipe.data_check import with_embeddings
from ..records import SPLITS
from ..records.embeddings import FILE, read_embeddings, to_bytes
from ..taps import Teacher
from ..tasks.embedding import standardized


def with_teacher_embeddings(
    components: RunComponents, fabric: Fabric, directory: RunDirectory
) -> ImageData:
    """Data whose held-out images have targets; those with labels are handed back.

    The teacher is asked once, by the first process, and its answers are kept in the run's
    directory: a run is evaluated without its teacher.
    """
    data = components.data
    parts = {split: images for split in SPLITS if (images := getattr(data, split)) is not None}
    if not components.task.embeddings or not parts:
        return data
    if fabric.is_global_zero and read_embeddings(directory.path) is None:
        asked = {split: _embeddings(components, images, fabric) for split, images in parts.items()}
        write_atomically(directory.path / FILE, to_bytes(asked))
    fabric.barrier()
    embeddings = read_embeddings(directory.path)
    assert embeddings is not None  # on a disk that all processes share, as checkpoints are
    return with_embeddings(data, embeddings)


def _embeddings(components: RunComponents, images: ImageSet, fabric: Fabric) -> Tensor:
    """The teacher's pooled last features (N, D), standardized over these images."""
    teacher = next(m for m in components.method.modules() if isinstance(m, Teacher))
    teacher.to(fabric.device)
    recipe, data = components.recipe, components.data
    batches = EvalLoader(
        images,
        batch_size=recipe.batch_size,
        mean=data.mean,
        std=data.std,
        device=fabric.device,
        workers=recipe.num_workers,
    )
    with torch.inference_mode(), fabric.autocast():
        vectors = [teacher.forward_pooled(batch.inputs)[2].float().cpu() for batch in batches]
    return standardized(torch.cat(vectors))
