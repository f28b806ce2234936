import pytest
from hand_made import Networks, networks


@pytest.fixture
def nets() -> Networks:
    return networks()
