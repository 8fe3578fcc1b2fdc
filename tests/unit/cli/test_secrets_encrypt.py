"""What `k3s secrets-encrypt status` prints."""

from __future__ import annotations

from k3s.cli.secrets_encrypt import table


def test_the_table() -> None:
    """As k3s prints it: the key that encrypts is marked."""
    state = {"enable": True, "stage": "prepare", "activekey": "AES-CBC aescbckey", "inactivekeys": ["AES-CBC new"]}
    assert table(state) == (
        "Encryption Status: Enabled\n"
        "Current Rotation Stage: prepare\n"
        "Server Encryption Hashes: All hashes match\n"
        "\n"
        "Active  Key Type  Name\n"
        "------  --------  ----\n"
        " *      AES-CBC   aescbckey\n"
        "        AES-CBC   new\n"
    )
    assert table({}) == "Encryption Status: Disabled, no configuration file found\n"
