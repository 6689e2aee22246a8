"""The one form of the tables that hold true effects of the generated worlds."""

from transforms.schema import Field, Table


def effects_table(
    name: str, *, comment: str, design: str, estimand: str, metric: str, term: str
) -> Table:
    """Declares a table of true effects, a row each.

    Args:
        name: The table.
        comment: What its effects are of.
        design: Which trials, rollouts or studies; these and the following are comments of columns.
        estimand: Which means of the units' effects.
        metric: Which outcomes.
        term: What is compared.
    """
    texts = {
        "world": "Name of the world",
        "design": design,
        "estimand": estimand,
        "metric": metric,
        "term": term,
        "scale": "absolute, or relative to the comparison",
    }
    return Table(
        name=name,
        comment=comment,
        fields=(
            *(Field(name=key, type="STRING", comment=text) for key, text in texts.items()),
            Field(name="value", type="DOUBLE", comment="The effect"),
            Field(name="comment", type="STRING", comment="What is averaged"),
        ),
        key=tuple(texts),
        checks={"scale_is_known": "scale IN ('absolute', 'relative')"},
    )
