"""Sections of docs/measurements.md, each from a csv file in results/."""

from collections.abc import Sequence

from record import recorded

EARLIER = (
    "The rows `muse*` were run at the last commit that is named, with critics at their full rate, "
    "the others while the code was being finished, over several commits before the first; the "
    "commands train them anew."
)


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    marks = ["---" if i == 0 else "---:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, marks, *lines))


def origin(found: list[dict[str, str]]) -> str:
    """Where the figures come from, as one line; a study that was extended has several parts."""
    first = {key: value.split("; ") for key, value in found[0].items()}
    commits, dates = " and ".join(first["commit"]), " and ".join(first["date"])
    commands = ", then ".join(f"`{command}`" for command in first["command"])
    machines, versions = " and ".join(first["machine"]), " and ".join(first["torch"])
    return f"{machines}; torch {versions}; commit {commits}; {dates}; {commands}"


def signed(points: float) -> str:
    """Points with their sign, as a page has them."""
    return f"{points:+.1f}".replace("-", "−")


def difference_name(row: dict[str, str]) -> str:
    """A difference's name, with the exit's where there is one of each."""
    return ", ".join(
        filter(None, (row["difference"], row.get("exit", "").replace("student", "final")))
    )


def accuracy(name: str, title: str, about: str, note: str = EARLIER) -> str:
    """One small study: the score of each exit on test images, and paired differences."""
    found = recorded(name)
    if not found:
        return ""
    every = dict.fromkeys(r["exit"] for r in found)
    exits = [*(e for e in every if e.startswith("exit")), "student"]
    others = [e for e in every if e not in exits]
    cells = {
        (r["row"], r["exit"]): f"{r['mean']} ± {r['std']}" for r in found if r["split"] == "test"
    }
    names = list(dict.fromkeys(r["row"] for r in found))
    lines = [[name, *(cells.get((name, e), "") for e in exits)] for name in names]
    for line in lines if others else ():
        beside = (f"{e} {cells[line[0], e]}" for e in others if (line[0], e) in cells)
        line.append(", ".join(beside))
    seeds = {r["row"]: r["n"] for r in found}
    n = ", ".join(f"{many} ({row})" for row, many in seeds.items())
    n = n if len(set(seeds.values())) > 1 else found[0]["n"]
    paired = [
        [difference_name(r), r["split"], r["mean"], f"{r['low']} … {r['high']}", r["verdict"]]
        for r in recorded(f"{name}-paired")
        if not r["difference"].startswith("ce ")
    ]
    heads = ["final" if e == "student" else e.replace("exit", "exit ") for e in exits]
    return "\n\n".join(
        [
            f"## {title}",
            f"{about} Test images, last epoch, mean ± standard deviation, n = {n} seeds:",
            table(["row", *heads, *["beside it"] * bool(others)], lines),
            "Differences, of the final exit if none is named, paired by seed, in points, with 95 % "
            "t intervals:",
            table(["difference", "images", "mean", "interval", ""], paired),
            *[note] * bool(note),
            origin(found),
        ]
    )


def figure(line: dict[str, str]) -> str:
    """Mean and deviation; of one run its figure."""
    return f"{line['mean']} ± {line['std']}" if line["std"] else f"{line['mean']} (one seed)"


def methods(name: str, title: str, about: str, note: str = EARLIER) -> str:
    """One small study of many methods: test accuracy of the student, and of what stays beside."""
    found = recorded(name)
    if not found:
        return ""
    test = [r for r in found if r["split"] == "test"]
    gains = {
        tuple(r["difference"].split(" - ")): f"{r['mean']} ({r['low']} … {r['high']})"
        for r in recorded(f"{name}-paired")
        if r["split"] == "test"
    }
    bases = list(dict.fromkeys(base for _, base in gains))
    lines = []
    for row in dict.fromkeys(r["row"] for r in test):
        own = {r["exit"]: figure(r) for r in test if r["row"] == row}
        beside = ", ".join(f"{exit} {value}" for exit, value in own.items() if exit != "student")
        lines.append([row, own["student"], *(gains.get((row, b), "") for b in bases), beside])
    header = ["row", "student", *(f"minus {base}" for base in bases), "beside it"]
    if not any(line[-1] for line in lines):
        header, lines = header[:-1], [line[:-1] for line in lines]
    seeds = {r["row"]: r["n"] for r in test}
    fewer = [f"{n} of {row}" for row, n in seeds.items() if n != test[0]["n"]]
    n = ", ".join([test[0]["n"], *fewer])
    return "\n\n".join(
        [
            f"## {title}",
            f"{about} Top-1 on the test images, last epoch, mean ± standard deviation of {n} "
            f"seeds; differences are paired by seed, with a 95 % t interval. {note}".rstrip(),
            table(header, lines),
            origin(found),
        ]
    )


def steps(name: str, title: str) -> str:
    """One table of step ratios."""
    found = recorded(name)
    if not found:
        return ""
    kinds = list(dict.fromkeys(r["arithmetic"] for r in found))
    cells = {(r["case"], r["arithmetic"]): r["ratio_median"] for r in found}
    cases = list(dict.fromkeys(r["case"] for r in found))
    lines = [[case, *(cells.get((case, kind), "") for kind in kinds)] for case in cases]
    header = ["step", *kinds]
    about = ""
    if "flops_ratio" in found[0]:
        memory = {r["case"]: r for r in recorded(f"memory-{name.partition('-')[2]}")}
        by_case = {r["case"]: r for r in found}
        header += ["multiply-adds", *["peak memory"] * bool(memory)]
        for line in lines:
            line.append(by_case[line[0]]["flops_ratio"])
            if memory:
                line.append(f"{memory[line[0]]['ratio']} ({memory[line[0]]['peak_mib']} MiB)")
        about = (
            " Beside it the multiply-adds of the step, forward and backward, over the plain one's."
        )
        if memory:
            about = (
                " Beside it the multiply-adds of the step, forward and backward, and the peak "
                "memory of a process that makes two steps, both over those of the plain one. The "
                f"teacher is {_teacher(found)}, a peer is like the student, CRD remembers 50,000 "
                "images."
            )
    return "\n\n".join(
        [
            f"## {title}",
            "Time of an optimizer step ÷ that of plain training in the same arithmetic, "
            f"median of {found[0]['rounds']} interleaved rounds, batch {found[0]['batch']}.{about}",
            table(header, lines),
            origin(found),
        ]
    )


def _teacher(found: list[dict[str, str]]) -> str:
    return next((r["teacher"] for r in found if r.get("teacher")), "none")


def plain(name: str, title: str, about: str, columns: dict[str, str]) -> str:
    """A result file as it is: {column of the file: heading}."""
    found = recorded(name)
    if not found:
        return ""
    lines = [[r[column] for column in columns] for r in found]
    return "\n\n".join([f"## {title}", about, table([*columns.values()], lines), origin(found)])
