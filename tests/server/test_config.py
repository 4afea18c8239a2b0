"""devices.toml: what is wrong in it is named with its file and field; what would be unsafe must be written out."""

from __future__ import annotations

import pytest
from glauber.errors import DeviceNotFoundError, FileFormatError, StoreError
from glauber.server.config import read_config
from glauber.server.lab import Lab
from lab_bench import CONFIG, write_config

KING = '[devices.king]\naddress = "sim://pbit-king-64"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("host = 1 = 2", "line 1"),
        ("", "devices"),
        ("port = 99999\n" + KING, "port"),
        ('port = "8765"\n' + KING, "port"),
        ("prot = 1\n" + KING, "prot: there is no such setting"),
        (KING + "max_site = 1\n", "devices.king.max_site: there is no such setting"),
        (KING + "max_sites = -1\n", "devices.king.max_sites"),
        (KING + "max_sites = true\n", "devices.king.max_sites"),
        ('[devices."../x"]\naddress = "sim://ideal"\n', "devices"),
        ('[devices.king]\ntitle = "x"\n', "devices.king.address"),
        (KING + '[devices.b]\naddress = "sim://pbit-king-64"\n', "address of two devices"),
        ('[devices.a]\naddress = "sim://ideal?seed=1"\n', "has a seed"),
        (KING + "[owners.ada]\nseconds_per_day = 0\n", "owners.ada.seconds_per_day"),
        (KING + "[owners.ada]\njoules_per_day = inf\n", "owners.ada.joules_per_day"),
        ('host = "192.168.1.5"\n' + KING, "allow_plain_http = true"),
        ('host = "0.0.0.0"\nallow_plain_http = true\n' + KING, "names"),
        ('tls_key = "k.pem"\n' + KING, "belong together"),
    ],
)
def test_mistakes_are_named(tmp_path, text, says):
    path = write_config(tmp_path, text)
    with pytest.raises(FileFormatError) as raised:
        read_config(path)
    assert str(path) in str(raised.value)
    assert says in str(raised.value)


def test_a_host_beyond_this_computer_wants_tls_or_a_word(tmp_path):
    plain = read_config(write_config(tmp_path, 'host = "192.168.1.5"\nallow_plain_http = true\n' + KING))
    assert plain.url == "http://192.168.1.5:8765"
    tls = 'host = "0.0.0.0"\nnames = ["lab.example"]\ntls_certificate = "c.pem"\ntls_key = "k.pem"\n'
    read = read_config(write_config(tmp_path, tls + KING))
    assert read.url == "https://lab.example:8765"
    assert read.tls_key == tmp_path / "k.pem"
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert read_config(write_config(tmp_path, f'host = "{host}"\n' + KING)).is_loopback


def test_the_store_lies_beside_the_file(tmp_path):
    assert read_config(write_config(tmp_path)).store == tmp_path / "jobs.sqlite"


def test_a_meter_that_the_driver_does_not_know_is_refused(tmp_path):
    config = read_config(write_config(tmp_path, 'store = "j"\n' + KING + 'meter = "nvml"\n'))
    assert config.devices["king"].full_address == "sim://pbit-king-64?meter=nvml"
    with pytest.raises(DeviceNotFoundError, match=r"devices.king: .*meter"):
        Lab(config)


def test_one_server_per_store(tmp_path):
    config = read_config(write_config(tmp_path))
    with Lab(config), pytest.raises(StoreError, match="another lab server"):
        Lab(config)
    Lab(config).close()  # the lock went with the first


def test_a_lab_that_cannot_open_lets_go_of_everything(tmp_path):
    broken = read_config(write_config(tmp_path, CONFIG + '[devices.no]\naddress = "sim://nothing"\n'))
    for _ in range(2):
        with pytest.raises(DeviceNotFoundError, match=r"devices\.no"):
            Lab(broken)
    Lab(read_config(write_config(tmp_path))).close()
