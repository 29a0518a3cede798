import pytest
from matplotlib.colors import to_rgb

from selfdistill.reporting.charts.style import palette


@pytest.mark.parametrize("stages", [0, 1, 3, 8])
def test_deeper_is_darker_on_white_and_lighter_on_black(stages):
    for theme, way in (("light", -1), ("dark", 1)):
        colors = palette(stages)[theme]
        assert len(colors) == stages
        light = [
            sum(w * c for w, c in zip((0.21, 0.72, 0.07), to_rgb(x), strict=True)) for x in colors
        ]
        assert light == sorted(light, reverse=way < 0)
