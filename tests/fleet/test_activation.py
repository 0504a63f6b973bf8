"""The module that makes a release live: all of it, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fleet.activations import CONFIG, RELOADS, SECRET, UNIT, Activations
from tests.fleet.conftest import BootHost


@pytest.fixture
def activations(boot_host: BootHost, tmp_path: Path) -> Activations:
    made = Activations(boot_host("one"), tmp_path)
    made.release("1.0")
    made.release("2.0", description="A newer test")
    return made


@pytest.fixture
def live(activations: Activations) -> Activations:
    """Version 1.0 runs."""
    result = activations.activate(activations.arguments("1.0"))
    assert (result["changed"], result["previous_version"]) == (True, "")
    return activations


def test_a_new_host_gets_files_link_and_unit_once(live: Activations) -> None:
    first = live.serving()
    assert first.startswith("1.0 ")
    assert live.enabled()
    assert live.host.run(f"stat -c '%a %U %G' {CONFIG}").stdout == "640 root aodtest\n"
    assert live.host.run(["readlink", "/opt/aod/current"]).stdout == "1.0\n"
    before = live.footprint()
    again = live.activate(live.arguments("1.0"))
    assert (again["changed"], again["restarted"], again["reloaded"]) == (False, [], [])
    assert (live.serving(), live.footprint()) == (first, before)


def test_directories_are_open_whatever_the_umask_of_a_login(activations: Activations) -> None:
    activations.host.run("sed -i '1i umask 077' /root/.bashrc")
    assert activations.host.run(["umask"]).stdout == "0077\n"
    activations.activate(activations.arguments("1.0"))
    assert activations.host.run("stat -c %a /etc/aod /etc/sysusers.d").stdout == "755\n755\n"


def test_a_file_that_needs_no_more_is_only_reloaded(live: Activations) -> None:
    first = live.serving()
    result = live.activate(live.arguments("1.0", config="good, too\n"))
    assert (result["changed"], result["restarted"], result["reloaded"]) == (True, [], [UNIT])
    assert live.serving() == first
    assert live.host.run(["cat", RELOADS]).stdout == "again\n"
    assert live.host.run(["cat", CONFIG]).stdout == "good, too\n"


def test_a_changed_unit_is_read_anew_and_restarted(live: Activations) -> None:
    first = live.serving()
    live.release("1.0", description="Another text")
    result = live.activate(live.arguments("1.0"))
    assert (result["restarted"], result["reloaded"]) == ([UNIT], [])
    assert live.serving() != first
    shown = live.host.run(["systemctl", "show", "--property=Description", UNIT]).stdout
    assert shown == "Description=Another text\n"


def test_another_mode_is_set_right_and_disturbs_nobody(live: Activations) -> None:
    first = live.serving()
    live.host.run(["chmod", "0666", CONFIG])
    result = live.activate(live.arguments("1.0"))
    assert (result["changed"], result["restarted"], result["reloaded"]) == (True, [], [])
    assert live.host.run(f"stat -c %a {CONFIG}").stdout == "640\n"
    assert live.serving() == first


def test_a_unit_that_somebody_stopped_or_disabled_comes_back(live: Activations) -> None:
    live.host.run(["systemctl", "disable", "--now", UNIT])
    result = live.activate(live.arguments("1.0"))
    assert (result["changed"], result["restarted"]) == (True, [UNIT])
    assert live.serving()
    assert live.enabled()


def test_another_version_takes_over_and_the_way_back_is_the_same(live: Activations) -> None:
    up = live.activate(live.arguments("2.0"))
    assert (up["version"], up["previous_version"]) == ("2.0", "1.0")
    assert live.serving().startswith("2.0 ")
    assert live.host.run(["readlink", "/opt/aod/previous"]).stdout == "1.0\n"
    down = live.activate(live.arguments("1.0"))
    assert (down["version"], down["previous_version"]) == ("1.0", "2.0")
    assert live.serving().startswith("1.0 ")
    assert live.host.run(["readlink", "/opt/aod/previous"]).stdout == "2.0\n"


def test_a_flip_restarts_the_other_services_that_run_and_no_template(live: Activations) -> None:
    live.host.run(
        "for u in aod-shipper.service aod-other.service aod-loader@.service; do"
        " printf '[Service]\\nExecStart=sleep infinity\\n' > /etc/systemd/system/$u; done;"
        " systemctl daemon-reload; systemctl start aod-shipper aod-loader@1"
    )
    loader = live.host.run(["systemctl", "show", "--property=MainPID", "aod-loader@1"]).stdout
    result = live.activate(live.arguments("2.0"))
    assert result["restarted"] == [UNIT, "aod-shipper.service"]
    after = live.host.run(["systemctl", "show", "--property=MainPID", "aod-loader@1"]).stdout
    assert after == loader


def test_a_bad_file_is_refused_with_the_reason_and_changes_nothing(live: Activations) -> None:
    first, before = live.serving(), live.footprint()
    output = live.fail(live.arguments("2.0", config="poor\n"))
    assert "nothing was changed" in output
    assert f"{CONFIG}: line 1 is not good" in output  # not the name of a temporary file
    assert (live.serving(), live.footprint()) == (first, before)


def test_a_command_of_validation_refuses_as_well(live: Activations) -> None:
    first, before = live.serving(), live.footprint()
    output = live.fail(live.arguments("2.0", validate=[["/bin/sh", "-c", "echo no room; exit 3"]]))
    assert "no room" in output
    assert (live.serving(), live.footprint()) == (first, before)


def test_an_unhealthy_version_is_put_back_byte_for_byte(live: Activations) -> None:
    before = live.footprint()
    live.release("3.0", healthy=False, description="Broken")
    output = live.fail(live.arguments("3.0", config="good for another\n"))
    assert '"rolled_back": true' in output
    assert "3.0 was rolled back (1.0 runs again)" in output
    assert "not well" in output
    live.host.run(["rm", "-r", "/opt/aod/3.0"])
    assert live.footprint() == before
    assert live.serving().startswith("1.0 ")
    assert live.enabled()
    assert live.activate(live.arguments("1.0"))["changed"] is False


def test_a_version_whose_health_is_never_told_is_put_back(live: Activations) -> None:
    health = [["/bin/sh", "-c", "[ $(readlink /opt/aod/current) = 1.0 ] || exec sleep 600"]]
    output = live.fail(live.arguments("2.0", health=health, health_timeout_sec=2))
    assert "no end after 2 s" in output
    assert "2.0 was rolled back (1.0 runs again)" in output
    assert live.serving().startswith("1.0 ")


def test_a_unit_that_does_not_start_is_put_back_with_its_journal(live: Activations) -> None:
    live.host.run("printf '#!/bin/sh\\necho my last word; exit 7\\n' > /opt/aod/2.0/bin/serve")
    live.host.run("sed -i 's/^ExecStart=/Type=oneshot\\n&/' /opt/aod/2.0/share/aod-agent.service")
    before = live.footprint()
    output = live.fail(live.arguments("2.0"))
    assert "my last word" in output
    assert live.footprint() == before
    assert live.serving().startswith("1.0 ")


def test_a_reload_that_is_refused_is_put_back(live: Activations) -> None:
    first, before = live.serving(), live.footprint()
    live.fail(live.arguments("1.0", config="good\n\n", health=[["false"]]))
    assert (live.serving(), live.footprint()) == (first, before)
    assert live.host.run(["cat", RELOADS]).stdout == "again\nagain\n"


def test_a_failure_to_put_back_is_told_with_its_cause_and_mended_by_the_next_run(
    live: Activations,
) -> None:
    before = live.footprint()
    read_only = ["sh", "-c", "mount -t tmpfs -o ro none /etc/aod; echo not well >&2; exit 1"]
    output = live.fail(live.arguments("2.0", config="good for another\n", health=[read_only]))
    for words in ("not well", "could not be put back", "Read-only file system", "run this again"):
        assert words in output
    live.host.run(["umount", "/etc/aod"])
    assert live.activate(live.arguments("1.0"))["recovered"] is True
    assert live.footprint() == before


def with_socket(activations: Activations, version: str, **more: Any) -> dict[str, Any]:
    """Of a release whose service also has a socket, if it is 2.0."""
    activations.host.run(
        "cd /opt/aod/2.0/share; printf '[Unit]\\nPartOf=aod-agent.service\\n"
        "[Socket]\\nListenStream=/run/aod-test.socket\\nRemoveOnStop=yes\\n"
        "Service=aod-agent.service\\n' > aod-test.socket;"
        " grep -q Wants= aod-agent.service || sed -i '1a Wants=aod-test.socket' aod-agent.service"
    )
    arguments = activations.arguments(version, **more)
    socket = {"src": "share/aod-test.socket", "optional": True}
    arguments["files"].append({**socket, "dest": "/etc/systemd/system/aod-test.socket"})
    return arguments


def test_a_socket_of_another_release_goes_with_it(live: Activations) -> None:
    live.fail(with_socket(live, "2.0", health=[["sh", "-c", "ls /run/aod-test.socket; false"]]))
    live.host.run("[ ! -e /run/aod-test.socket ]; ! systemctl -q is-active aod-test.socket")
    live.activate(with_socket(live, "2.0"))
    live.host.run(["systemctl", "is-active", "aod-test.socket"])
    live.activate(with_socket(live, "1.0"))
    live.host.run("[ ! -e /run/aod-test.socket ]; ! systemctl -q is-active aod-test.socket")
    assert live.serving().startswith("1.0 ")


def test_a_service_that_is_being_started_again_is_not_given_up(live: Activations) -> None:
    """It waits for its next start, such as for a host that is overloaded."""
    again = "Restart=always\\nRestartSec=600\\nExecStartPre=false"
    live.host.run(f"sed -i 's/^ExecStart=/{again}\\n&/' /opt/aod/1.0/share/{UNIT}")
    live.host.run(f"cp /opt/aod/1.0/share/{UNIT} /etc/systemd/system/; systemctl daemon-reload")
    live.host.run(f"systemctl restart {UNIT}", check=False)
    state = ["systemctl", "show", "--property=ActiveState", UNIT]
    assert live.host.run(state).stdout == "ActiveState=activating\n"
    live.fail(live.arguments("2.0", health=[["false"]]))
    assert live.host.run(state).stdout == "ActiveState=activating\n"


def test_a_first_installation_that_fails_leaves_nothing(activations: Activations) -> None:
    before = activations.footprint()
    output = activations.fail(activations.arguments("1.0", health=[["false"]]))
    assert '"rolled_back": true' in output
    assert "nothing of it is left" in output
    assert activations.footprint() == before
    assert not activations.serving()
    shown = ["systemctl", "list-units", "--all", "--plain", "--no-legend", UNIT]
    assert activations.host.run(shown).stdout == ""


@pytest.mark.parametrize(
    "moment",
    [
        "systemd-sysusers /etc/sysusers.d/aod-test.conf",
        "systemctl daemon-reload",
        "systemctl enable",
        "systemctl restart",
    ],
)
def test_killed_on_a_new_host_the_next_run_makes_it_whole(
    activations: Activations, moment: str
) -> None:
    activations.kill_at(moment)
    killed = activations.run(activations.arguments("1.0"))
    assert killed.exit_code != 0, killed.output
    result = activations.activate(activations.arguments("1.0"))
    assert (result["recovered"], result["changed"]) == (True, True)
    assert activations.serving().startswith("1.0 ")
    assert activations.enabled()
    assert activations.activate(activations.arguments("1.0"))["changed"] is False
    assert "transaction" not in activations.footprint()
    assert "aod-new" not in activations.footprint()


@pytest.mark.parametrize("moment", ["systemctl daemon-reload", "systemctl restart", "health"])
def test_killed_in_an_upgrade_the_old_version_can_be_had_again(
    live: Activations, moment: str
) -> None:
    before = live.footprint()
    arguments = live.arguments("2.0", config="good for another\n")
    if moment == "health":
        arguments["health"] = [["sh", "-c", "kill -KILL $PPID"]]
    else:
        live.kill_at(moment)
    assert live.run(arguments).exit_code != 0
    assert live.footprint() != before
    preview = live.activate(live.arguments("1.0"), "--check")
    assert (preview["recovered"], preview["changed"]) == (True, True)
    result = live.activate(live.arguments("1.0"))
    assert (result["recovered"], result["changed"]) == (True, True)
    assert live.footprint() == before
    assert live.serving().startswith("1.0 ")


def test_a_lost_connection_ends_nothing(live: Activations) -> None:
    hang_up = ["sh", "-c", "kill -HUP $PPID"]
    result = live.activate(live.arguments("2.0", health=[hang_up, ["true"]]))
    assert result["changed"] is True
    assert live.serving().startswith("2.0 ")


def test_two_at_a_time_wait_for_each_other(live: Activations) -> None:
    """A lost controller's run still waits for health; another must not take it for a dead one."""
    live.host.run(
        "cat > /run/hold.py <<'END'\n"
        "import fcntl, os, sys\n"
        "fd = os.open('/opt/aod', os.O_RDONLY)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "open('/run/held', 'w').close()\n"
        "while os.path.exists('/run/held'):\n"
        "    if any(' FLOCK ' in l and '->' in l for l in open('/proc/locks')):\n"
        "        os.unlink('/run/held')\n"
        "        open('/run/waited', 'w').close()\n"
        "END\n"
        "systemd-run --quiet --unit=hold python3 /run/hold.py\n"
        "until [ -e /run/held ]; do sleep 0.1; done"
    )
    assert live.activate(live.arguments("1.0"))["changed"] is False
    live.host.run(["test", "-e", "/run/waited"])


def test_a_release_that_is_gone_is_neither_activated_nor_kept_for_a_way_back(
    live: Activations,
) -> None:
    output = live.fail(live.arguments("9.9"))
    assert "/opt/aod/9.9" in output
    live.host.run(["rm", "-r", "/opt/aod/1.0"])
    result = live.activate(live.arguments("2.0"))
    assert result["previous_version"] == "1.0"
    assert live.serving().startswith("2.0 ")
    live.host.run("[ ! -L /opt/aod/previous ]")


def test_a_masked_unit_is_left_alone_with_a_word(activations: Activations) -> None:
    activations.host.run(["systemctl", "mask", UNIT])
    before = activations.footprint()
    assert "systemctl unmask" in activations.fail(activations.arguments("1.0"))
    assert activations.footprint() == before


def test_check_mode_tells_and_does_nothing(live: Activations) -> None:
    before, first = live.footprint(), live.serving()
    arguments = live.arguments("2.0", config="good for another\n")
    run = live.run(arguments, "--check", "--diff")
    assert run.exit_code == 0, run.output
    for line in ("-good", "+good for another", "-Description=A test", "+2.0"):
        assert f"\n{line}\n" in run.output
    assert live.activate(arguments, "--check")["restarted"] == [UNIT]
    assert (live.footprint(), live.serving()) == (before, first)


def test_check_mode_knows_a_host_without_the_release(boot_host: BootHost, tmp_path: Path) -> None:
    fresh = Activations(boot_host("fresh"), tmp_path)
    run = fresh.run(fresh.arguments("1.0"), "--check", "--diff")
    assert run.exit_code == 0, run.output
    assert "+good\n" in run.output
    assert "+1.0\n" in run.output
    fresh.host.run("[ ! -e /opt/aod ]")


def test_check_mode_refuses_a_bad_file_too(live: Activations) -> None:
    run = live.run(live.arguments("1.0", config="poor\n"), "--check")
    assert "nothing was changed" in run.output
    assert run.exit_code != 0


def test_a_secret_is_in_no_output(live: Activations) -> None:
    live.host.run("mkdir -p /opt/aod/staged; echo old-word > /etc/aod/secret")
    live.host.run("echo hush-hush > /opt/aod/staged/secret")
    arguments = live.arguments("1.0")
    arguments["files"].append(
        {"src": "/opt/aod/staged/secret", "dest": SECRET, "mode": "0600", "secret": True}
    )
    for options in (["--check", "--diff", "-vvv"], ["--diff", "-vvv"]):
        run = live.run(arguments, *options)
        assert run.exit_code == 0, run.output
        assert SECRET in run.output
        assert "hush" not in run.output
        assert "old-word" not in run.output
    assert live.host.run(f"cat {SECRET}; stat -c %a {SECRET}").stdout == "hush-hush\n600\n"


def test_absent_takes_unit_and_files_away_twice(live: Activations) -> None:
    arguments = {**live.arguments("1.0"), "state": "absent"}
    assert live.activate(arguments, "--check")["changed"] is True
    assert live.serving()
    assert live.activate(arguments)["changed"] is True
    assert not live.serving()
    assert not live.enabled()
    left = live.footprint()
    assert f"/etc/systemd/system/{UNIT}" not in left
    assert CONFIG not in left
    assert live.activate(arguments)["changed"] is False


def test_absent_leaves_a_directory_that_was_there_and_none_that_was_not(
    activations: Activations,
) -> None:
    activations.host.run("rm -rf /etc/aod; mkdir -p /etc/sysusers.d; rm -f /etc/sysusers.d/*")
    activations.activate(activations.arguments("1.0"))
    activations.activate(activations.arguments("2.0"))  # made nothing, and forgets nothing
    activations.activate({**activations.arguments("2.0"), "state": "absent"})
    assert (
        activations.host.run("cd /etc; ls -d aod sysusers.d", check=False).stdout == "sysusers.d\n"
    )


def test_a_stricter_release_checks_the_file_that_stays(live: Activations) -> None:
    first = live.serving()
    live.host.run("sed -i s/good/better/ /opt/aod/2.0/bin/check")
    assert "nothing was changed" in live.fail(live.arguments("2.0"))
    assert live.serving() == first


def test_a_removal_does_not_leave_a_killed_upgrade_to_come_back(live: Activations) -> None:
    live.kill_at("systemctl restart")
    live.run(live.arguments("2.0", config="good for another\n"))
    live.activate({**live.arguments("1.0"), "state": "absent"})
    left = live.footprint()
    assert "transaction" not in left
    result = live.activate({"version": "1.0", "files": [], "units": []})
    assert result["recovered"] is False
    assert live.footprint() == left


def test_a_file_that_a_release_does_not_have_goes_with_it(live: Activations) -> None:
    live.host.run(["cp", "/opt/aod/2.0/share/user.conf", "/opt/aod/2.0/share/more.conf"])
    extra = {"src": "share/more.conf", "dest": "/etc/aod/more.conf", "optional": True}

    def arguments(version: str) -> dict[str, Any]:
        plain = live.arguments(version)
        return {**plain, "files": [*plain["files"], extra]}

    before = live.footprint()
    live.activate(arguments("2.0"))
    assert "/etc/aod/more.conf" in live.footprint()
    live.activate(arguments("1.0"))
    assert "/etc/aod/more.conf" not in live.footprint()
    assert live.activate(arguments("1.0"))["changed"] is False
    live.host.run(["rm", "/opt/aod/previous"])
    assert live.footprint() == before


def test_old_releases_go_but_never_the_two_that_are_linked(live: Activations) -> None:
    for version in ("3.0", "4.0"):
        live.release(version)
    preview = live.activate(live.arguments("1.0", keep=3), "--check")
    assert preview["changed"] is True
    live.activate(live.arguments("2.0", keep=3))
    names = "ls -d /opt/aod/[0-9]*"
    assert live.host.run(names).stdout.split() == [f"/opt/aod/{v}" for v in ("1.0", "2.0", "4.0")]
    live.activate(live.arguments("2.0", keep=1))
    assert live.host.run(names).stdout.split() == ["/opt/aod/1.0", "/opt/aod/2.0"]
    assert live.activate(live.arguments("2.0", keep=1))["changed"] is False
