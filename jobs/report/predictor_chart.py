"""Shows which label-free numbers predicted transfer, as a heat map."""

from jobs.report.chart_parts import Spec, chart
from jobs.report.predictors import Predictor

ROW = 24  # pixels


def heat_map(found: list[Predictor]) -> Spec | None:
    """Shows Kendall's tau of each label-free number with each protocol, within and across tasks.

    Numbers whose interval contains 0 are pale.
    """
    values = []
    for one in found:
        for kind, tau in (("within a task", one.within), ("across tasks", one.across)):
            if tau:
                values.append(
                    {
                        "measure": one.measure,
                        "column": f"{one.protocol}, {kind}",
                        "tau": tau.tau,
                        "shown": f"{tau.tau:+.2f}",
                        "interval": f"{tau.low:+.2f} to {tau.high:+.2f}",
                        "encoders": tau.items,
                        "sure": tau.low > 0 or tau.high < 0,
                    }
                )
    if not values:
        return None
    strength: dict[str, float] = {}
    for one in values:
        strength[one["measure"]] = max(strength.get(one["measure"], 0), abs(one["tau"]))
    order = sorted(strength, key=lambda name: -strength[name])
    columns = list(dict.fromkeys(one["column"] for one in values))
    place = {
        "x": {
            "field": "column",
            "type": "nominal",
            "sort": columns,
            "title": None,
            "axis": {"labelAngle": -30, "orient": "top"},
        },
        "y": {"field": "measure", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 170}},
    }
    color = {
        "field": "tau",
        "type": "quantitative",
        "title": "Kendall's tau",
        "scale": {"domain": [-1, 0, 1], "range": ["#b2182b", "#f7f7f7", "#2166ac"]},
    }
    pale = {"condition": {"test": "datum.sure", "value": 1}, "value": 0.35}
    hover = [
        {"field": "measure"},
        {"field": "column", "title": "of"},
        {"field": "shown", "title": "tau"},
        {"field": "interval", "title": "95 % interval"},
        {"field": "encoders"},
    ]
    cells = {"mark": {"type": "rect"}, "encoding": {**place, "color": color, "opacity": pale, "tooltip": hover}}
    strong = "datum.sure && abs(datum.tau) > 0.55"
    words = {
        "mark": {"type": "text", "fontSize": 11.5},
        "encoding": {
            **place,
            "text": {"field": "shown"},
            "color": {"condition": {"test": strong, "value": "#fff"}, "value": "#111"},
        },
    }
    return chart("Which label-free numbers predicted transfer", values, [cells, words], ROW * len(order))
