"""A user's arrays, of whatever origin, as data sets with three splits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integers
from qspinn.data.events.dataset import EventDataset, alike_once_merged, largest_count
from qspinn.data.images.dataset import Dataset, Split
from qspinn.data.own.binned import event_sets, named
from qspinn.data.own.forms import Arrays, ArraySet, Settings, arranged, classes_in, counts_of, need_as_many
from qspinn.data.own.labels import Classes, absences
from qspinn.data.own.splits import PARTS, Numbers, by_content, by_name, need_one_label, rule_of
from qspinn.data.shared import hashes
from qspinn.errors import DataError

AS_STORED = "splits as the file says"


def events_of(given: Arrays, settings: Settings) -> EventDataset:
    """The event data set in arrays.

    Raises:
        DataError: names the place, the value, what is allowed and the fix.
    """
    arrays = arranged(given, settings.where)
    classes = classes_in(arrays, settings.where)
    stored = event_sets(arrays, classes, settings)
    sets, rule = _three_splits(
        arrays, stored.parts, classes, settings, lambda s: s.contents(), lambda s, which: s.take(which)
    )
    merged = [named(settings.where, lambda s=s: stored.merged(s.events)) for s in sets]  # type: ignore[misc]
    known = stored.factor > 1 or sets[0].raw is not None
    alike = (
        known
        and not settings.allow_shared
        and alike_once_merged(settings.name, merged, lambda: [s.contents() for s in sets])
    )
    train, validation, test = merged
    return EventDataset(
        name=settings.name,
        shape=train.shape,
        n_steps=train.n_steps,
        bin_ms=stored.bin_ms,
        labels=classes.names,
        train=train,
        validation=validation,
        test=test,
        split_rule="; ".join([rule, *stored.notes]),
        max_count=largest_count(*merged),
        allow_shared=settings.allow_shared or alike,
    )


def images_of(given: Arrays, settings: Settings) -> Dataset:
    """The image data set in arrays.

    Raises:
        DataError: names the place, the value, what is allowed and the fix.
    """
    for field in ("bin_ms", "n_bins"):
        if getattr(settings, field):
            raise DataError(
                f"{settings.where}: {field}",
                "is for recordings, and images have no steps",
                got=getattr(settings, field),
                fix="leave it out",
            )
    arrays = arranged(given, settings.where, images=True)
    classes = classes_in(arrays, settings.where)
    pixels = {
        part: _images(f"{settings.where}: x{arrays.suffix(part)}", own["x"], settings.scale)
        for part, own in arrays.parts.items()
    }
    shape = _image_shape(settings.where, pixels, arrays.common.get("shape"))
    for part, x in pixels.items():
        name = f"x{arrays.suffix(part)}"
        need_as_many(settings.where, name, len(x), classes.labels[f"labels{arrays.suffix(part)}"])
    stored = {
        part: Split(images=x.reshape(len(x), -1), labels=classes.labels[f"labels{arrays.suffix(part)}"], first=0)
        for part, x in pixels.items()
    }
    splits, rule = _three_splits(
        arrays,
        stored,
        classes,
        settings,
        lambda s: hashes([(image,) for image in s.images]),
        lambda s, which: Split(images=s.images[which], labels=s.labels[which], first=0),
    )
    starts = np.cumsum([0, *(len(s.labels) for s in splits)])
    train, validation, test = (
        msgspec.structs.replace(s, first=int(start)) for s, start in zip(splits, starts[:-1], strict=True)
    )
    return Dataset(
        name=settings.name,
        shape=shape,
        labels=classes.names,
        train=train,
        validation=validation,
        test=test,
        split_rule=rule,
        allow_shared=settings.allow_shared,
    )


def _three_splits(
    arrays: ArraySet,
    stored: dict[str, Any],
    classes: Classes,
    settings: Settings,
    contents: Callable[[Any], list[bytes]],
    take: Callable[[Any, NDArray[np.int64]], Any],
) -> tuple[list[Any], str]:
    """(training, validation, test; the rule that made them, for the report) of what is stored."""
    if "" in stored:
        chosen, rule = _chosen(arrays, stored[""], classes, settings, contents)
        absent = absences(settings.where, {p: stored[""].labels[which] for p, which in chosen.items()}, classes.names)
        sets = [take(stored[""], chosen[part]) for part in PARTS]
    else:
        rule = AS_STORED
        absent = absences(settings.where, {p: stored[p].labels for p in PARTS}, classes.names)
        sets = [stored[part] for part in PARTS]
    return sets, "; ".join([f"{settings.name}, {rule}", *([classes.rule] if classes.rule else []), *absent])


def _chosen(
    arrays: ArraySet, whole: Any, classes: Classes, settings: Settings, contents: Callable[[Any], list[bytes]]
) -> tuple[Numbers, str]:
    """(numbers of the recordings of each split, the rule that chose them)."""
    if "split" in arrays.parts[""]:
        return by_name(f"{settings.where}: split", arrays.parts[""]["split"], len(whole.labels)), AS_STORED
    known = contents(whole)
    if not settings.allow_shared:
        noun = "images" if arrays.form == "images" else "recordings"
        need_one_label(settings.where, whole.labels, known, classes.names, noun)
    return by_content(settings.where, whole.labels, known, classes.names), rule_of()


def _images(where: str, x: Any, scale: float) -> NDArray[np.uint8]:
    """Images [N, H, W] or [N, n]."""
    pixels = counts_of(where, x, scale, pixels=True)
    if pixels.ndim not in (2, 3) or 0 in pixels.shape[1:]:
        raise DataError(where, "has the wrong shape", got=pixels.shape, allowed="[N, H, W] or [N, n_pixels]")
    return pixels


def _image_shape(where: str, pixels: dict[str, NDArray[np.uint8]], shape: NDArray | None) -> tuple[int, int]:
    """Rows and columns of the images of all splits."""
    sizes = sorted({x.shape[1:] for x in pixels.values()})
    if len(sizes) > 1:
        raise DataError(f"{where}: x", "is of another size from split to split", got=sizes, allowed="one size")
    (size,) = sizes
    if shape is None:
        return size if len(size) == 2 else (1, size[0])
    found = tuple(integers(f"{where}: shape", shape, shape=(2,), low=1).tolist())
    if found[0] * found[1] != int(np.prod(size)) or (len(size) == 2 and size != found):
        raise DataError(f"{where}: shape", "does not fit x", got=found, allowed=f"rows and columns of {size}")
    return found[0], found[1]
