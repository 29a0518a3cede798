import pytest

from selfdistill.core import MissingExtraError, require


def test_what_is_installed_is_not_complained_about():
    require("torch", extra="none", purpose="a test")


def test_what_is_missing_is_named_with_its_remedy():
    with pytest.raises(MissingExtraError, match=r'a page needs no_such; .*"selfdistill\[plot\]"'):
        require("no_such", extra="plot", purpose="a page")
