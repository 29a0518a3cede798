"""A method around a network: the constructor says by names and annotations what it is given."""

import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from .. import methods as _all_methods  # noqa: F401  importing them is what registers them
from ..core import METHODS, STUDENT, ConfigError, Frozen, Method, Task
from ..modules.joined_methods import JoinedMethods, check_joinable
from ..taps import Taps, Teacher, beside, example_output, resolve_taps
from .options import check_companions, method_classes
from .placeholder_teacher import PlaceholderTeacher


class MethodInputs(NamedTuple):
    """What there is to be given to a method, and where its features are read.

    Where `shared`, networks have the taps of several methods, of which each takes its own.
    """

    student: nn.Module
    task: Task
    taps: Any
    teacher: nn.Module | None
    teacher_taps: Any
    peers: Sequence[nn.Module]
    train_labels: Tensor | None
    shared: bool = False


def build_method(
    name: str,
    network: nn.Module,
    task: Task,
    taps: Any = "auto",
    chosen: Mapping[str, Any] | None = None,
    *,
    teacher: nn.Module | None = None,
    teacher_taps: Any = "auto",
    teacher_unlike: str = "",
    peers: Sequence[nn.Module] = (),
    train_labels: Tensor | None = None,
) -> Method:
    """A method, or several joined by `+`, around a network.

    Args:
        name: of the method, or `a+b`.
        network: the student.
        task: what the labels mean.
        taps, teacher_taps: where to read features, see `find_taps`, "auto" for the method's
            `default_taps`; a peer's are read like the student's where it has those modules, else
            by `default_taps`.
        chosen: the method's options; of joined methods a dictionary for each.
        teacher: for methods that learn from one: a network, or the method that trained it.
        teacher_unlike: why its classes are known not to be the task's, a sentence, or "".
        peers: for methods that train several networks.
        train_labels: of all training images, (N,), for methods that keep something for each.

    Raises:
        ConfigError: the method lacks something, or has no use for what it is given.
    """
    parts = method_classes(name)
    given = MethodInputs(network, task, taps, teacher, teacher_taps, peers, train_labels)
    _check(name, parts, given)
    method = _built(parts, given, chosen or {})
    if teacher is None or not method.needs.teacher_scores:
        return method
    if unlike := teacher_unlike or unlike_outputs(teacher_network(teacher), task):
        raise ConfigError(unlike)
    return method


def teacher_network(teacher: nn.Module) -> nn.Module:
    """The network itself where a teacher is given as the method that trained it."""
    return teacher.predictors()[STUDENT] if isinstance(teacher, Method) else teacher


def lacking_parts(teacher: object, method: str, arguments: str) -> ConfigError:
    """The error for a teacher that another method trained than the one whose parts are read."""
    return ConfigError(
        f"teacher {teacher} brings none of the parts that method '{method}' trains, from which the "
        f"student learns; train a teacher: selfdistill train --method {method} {arguments}"
    )


def unlike_outputs(teacher: nn.Module, task: Task) -> str:
    """Why a module's outputs are not of the task's form, a sentence, or ""."""
    output = example_output(teacher, task.example)
    try:
        task.check_output(teacher, output)
    except ConfigError as error:
        return str(error)
    return ""


def _built(
    parts: Mapping[str, type[Method]], given: MethodInputs, chosen: Mapping[str, Any]
) -> Method:
    if len(parts) == 1:
        (cls,) = parts.values()
        return cls(**_arguments(cls, given), **chosen)
    check_joinable(parts)
    kinds = dict.fromkeys(cls.default_taps for cls in parts.values() if _takes_taps(cls))
    given = _tapped(given, list(kinds) or ["auto"])._replace(shared=True)
    built = {
        part: cls(**_arguments(cls, given), **chosen.get(part, {})) for part, cls in parts.items()
    }
    teacher = given.teacher if isinstance(given.teacher, Taps) else None
    return JoinedMethods(built, typing.cast(Taps, given.student), teacher)


def _arguments(cls: type[Method], given: MethodInputs) -> dict[str, Any]:
    """The positional arguments of a constructor: networks with taps where it is annotated so.

    A teacher is frozen here, so that no method can train or save it.
    """
    hints = typing.get_type_hints(cls.__init__)
    if given.teacher is not None and not cls.teacher_method:
        given = given._replace(teacher=teacher_network(given.teacher))
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            continue
        if name not in MethodInputs._fields:
            raise ConfigError(
                f"the constructor of {cls.__name__} has the positional parameter '{name}', which "
                f"nothing provides; there are student, task, teacher, peers and train_labels, and "
                "options are keyword-only"
            )
        has_taps = _with_taps(hints.get(name))
        argument = getattr(_tapped(given, [cls.default_taps]) if has_taps else given, name)
        if name == "teacher":
            argument = Teacher(argument) if has_taps else Frozen(argument)
        arguments[name] = argument
    return arguments


def _with_taps(annotation: Any) -> bool:
    """Whether a parameter is annotated as a network with taps, or several."""
    return bool({Taps, Teacher} & {annotation, *typing.get_args(annotation)})


def _takes_taps(cls: type[Method]) -> bool:
    return any(
        _with_taps(annotation) for annotation in typing.get_type_hints(cls.__init__).values()
    )


def _tapped(given: MethodInputs, kinds: Sequence[str]) -> MethodInputs:
    """The same with taps on every network, where none are named those of all kinds of default."""

    def with_taps(network: nn.Module, names: Any) -> Taps:
        if isinstance(network, Taps) and not given.shared:
            return network
        bare = network.network if isinstance(network, Taps) else network
        example = beside(bare, given.task.example)
        if names == "auto":
            tap_sets = [resolve_taps(bare, kind, example) for kind in kinds]
            names = list(dict.fromkeys(name for tap_set in tap_sets for name in tap_set))
        if isinstance(network, Taps):
            return network.select(resolve_taps(bare, names, example))
        return Taps(bare, names, example=example)

    teacher = given.teacher
    if teacher is not None and not isinstance(teacher, Method):
        teacher = with_taps(teacher, given.teacher_taps)
    peers = [with_taps(peer, _taps_of_peer(peer, given.taps)) for peer in given.peers]
    student = with_taps(given.student, given.taps)
    return given._replace(student=student, teacher=teacher, peers=peers)


def _taps_of_peer(peer: nn.Module, taps: Any) -> Any:
    """The student's, or those of a method's own kind where the peer lacks one of these modules."""
    if taps in ("auto", "stages"):
        return taps
    names = taps.split(",") if isinstance(taps, str) else taps
    there = dict((peer.network if isinstance(peer, Taps) else peer).named_modules())
    return taps if all(name.strip() in there for name in names) else "auto"


def unsupported_reason(method: type[Method], task: Task | type[Task]) -> str:
    """What a method wants and a task has not, in words; nothing where the two go together."""
    needs, name = method.needs, task.name
    if needs.graphs and not task.graphs:
        return f"compares neighbors in a graph, and {name} is of images"
    if needs.images and task.graphs:
        return f"works on images, and {name} is of graphs"
    if needs.images and not needs.clips and task.clips:
        return f"works on images, and {name} have times, too"
    if needs.embeddings and not task.embeddings:
        return f"learns an embedding and reads no label, and {name} is of labels"
    if task.embeddings and not needs.embeddings:
        return f"learns from labels, which {name} lacks"
    if needs.image_labels and not task.image_labels:
        return f"wants one class label an image, which {name} lacks"
    if needs.dense_scores and not task.dense_scores:
        return f"compares the scores of an image's places, which {name} has not"
    if needs.class_scores and not task.class_scores:
        return f"wants outputs that are class scores, unlike {name}'s"
    if needs.views > 1 and not task.image_labels:
        return f"compares two augmentations of an image, whose labels {name} has at other places"
    return ""


def _check_apart(given: MethodInputs) -> None:
    """Refuse networks that share tensors: freezing one or training it would change the other."""
    networks = {"model": given.student}
    if given.teacher is not None:
        networks["teacher"] = given.teacher
    networks |= {f"peers[{i}]": peer for i, peer in enumerate(given.peers)}
    owners: dict[int, str] = {}
    for role, network in networks.items():
        for tensor in (*network.parameters(), *network.buffers()):
            if (owner := owners.setdefault(id(tensor), role)) != role:
                raise ConfigError(
                    f"{owner} and {role} share weights, and one would change with the other; give "
                    f"{role} a copy of its own: copy.deepcopy({role})"
                )


def _check(name: str, parts: Mapping[str, type[Method]], given: MethodInputs) -> None:
    for part, cls in parts.items():
        if lack := unsupported_reason(cls, given.task):
            raise ConfigError(
                f"method '{part}' {lack}; `selfdistill methods` says what each method serves"
            )
    takes = {parameter for cls in parts.values() for parameter in inspect.signature(cls).parameters}
    check_companions(name, given.teacher is not None, bool(given.peers))
    _check_apart(given)
    if "teacher" in takes and given.teacher is None:
        raise ConfigError(
            f"method '{name}' learns from a teacher: give --teacher with a run, a weights file or "
            "timm/NAME (in Python: teacher=)"
        )
    for wanted in filter(None, (cls.teacher_method for cls in parts.values())):
        if not isinstance(given.teacher, PlaceholderTeacher | METHODS[wanted]):
            raise lacking_parts("as it is given", wanted, "(in Python: teacher=run.method)")
    if "peers" in takes and not given.peers:
        raise ConfigError(
            f"method '{name}' trains several networks at once: give --peer MODEL "
            "(in Python: peers=[...])"
        )
    if "train_labels" in takes and given.train_labels is None:
        raise ConfigError(f"method '{name}' wants train_labels, the labels of all training images")
