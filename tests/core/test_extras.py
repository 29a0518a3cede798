import pytest

from selfdistill.core import ConfigError, require


def test_what_is_installed_is_not_complained_about():
    require("torch", extra="none", purpose="tests")


def test_what_is_missing_is_named_with_its_remedy():
    with pytest.raises(ConfigError, match=r'pages need no_such, .*"selfdistill\[plot\]"'):
        require("no_such", extra="plot", purpose="pages")
