#!/usr/bin/env python3
"""What <roda/plugin.h> promises, seen on the real broker with the plugins of the folder plugins:
each verdict at its stage, services, the pool, the order of hooks, blame, and what is not loaded."""

import os
import re
import signal
import socket
import unittest
from pathlib import Path

from broker import PLAIN, PLUGINS, UNIX, Broker, run_broker, wait_until
from clients import LineClient

FOLDER = Path(os.environ["RODA_TEST_PLUGIN_DIR"])


def section(name, options=""):
    return f"[plugin {name}]\npath = {FOLDER / name}.so\n{options}\n"


def broker_with(*sections, workers=2, **arguments):
    """Filters stand before the owner; that they could stand behind it is not what is tested."""
    return Broker(workers=workers, listeners=UNIX, plugins="".join(sections) + PLUGINS, **arguments)


class People(unittest.TestCase):
    def people(self, broker, *nicks):
        clients = [LineClient(broker, nick, listener="unix") for nick in nicks]
        for client in clients:
            self.addCleanup(client.close)
            broker.before_stop.append(client.close)
        return clients


class NotLoaded(unittest.TestCase):
    """Refused by its note, before any code of it has run: the constructor would leave a mark."""

    def refused(self, name, *wanted):
        with Broker(listeners=UNIX) as broker:  # for a folder and a configuration that are right
            mark = Path(broker.folder.name) / "mark"
            conf = Path(broker.folder.name) / "refused.conf"
            conf.write_text(broker.conf.read_text() + section(name))
            status, _, told = run_broker(
                "-c", conf, "--check", environment={"RODA_TEST_MARK": str(mark)}
            )
            self.assertEqual(status, 1, told)
            for part in (name, *wanted):
                self.assertIn(part, told)
            self.assertFalse(mark.exists(), "code of it ran")

    def test_wrong_abi(self):
        self.refused("wrong_abi", "1.0")

    def test_wrong_size(self):
        self.refused("wrong_size", "bytes")

    def test_no_note(self):
        self.refused("no_note", "RODA_PLUGIN")

    def test_missing_need(self):
        self.refused("missing_need", "nothing/1")


class Verdicts(People):
    def test_replace(self):
        with broker_with(section("replace")) as broker:
            ana, bia = self.people(broker, "ana", "bia")
            ana.send("replace good morning")
            bia.expect(r"ana: good morning$")

    def test_reject_and_drop(self):
        with broker_with(section("reject", "unit = 17")) as broker:
            ana, bia = self.people(broker, "ana", "bia")
            ana.send("reject submit")
            ana.expect(r"^! .*refused at submit")
            ana.send("reject admit")
            ana.expect(r"^! .*refused at the home")
            ana.send("seventeen letters")
            ana.expect(r"^! .*not of this length")
            ana.send("drop submit")
            ana.send("drop admit")
            ana.sync()
            ana.send("the end")
            seen = []
            while not seen or "the end" not in seen[-1]:
                seen.append(bia.line())
            said = [line for line in seen if "ana: " in line]
            self.assertEqual(len(said), 1, said)

    def test_delay_keeps_order(self):
        with broker_with(section("delay_submit", "delay = 100ms")) as broker:
            ana, bia = self.people(broker, "ana", "bia")
            for text in ("delay one", "two", "delay three", "four"):
                ana.send(text)
            ana.sync()
            bia.next(r"ana: delay one$")
            bia.next(r"ana: two$")
            bia.next(r"ana: delay three$")
            bia.next(r"ana: four$")

    def test_delay_is_bounded(self):
        delay = section("delay_submit", "delay = 100ms")
        with broker_with(delay, limits="max_delay = 1s") as broker:
            (ana,) = self.people(broker, "ana")
            ana.send("delay for ever")
            ana.expect(r"^! .*held back")

    def test_defer(self):
        defer = section("defer_submit", "after = 50ms")
        with broker_with(defer, limits="max_delay = 1s") as broker:
            ana, bia = self.people(broker, "ana", "bia")
            ana.send("defer this")
            ana.send("not this")
            bia.expect(r"ana: defer this$")
            bia.next(r"ana: not this$")
            ana.send("defer reject")
            ana.expect(r"^! .*decided later")
            ana.send("defer drop")
            ana.sync()
            ana.send("defer never")
            ana.expect(r"^! .*held back")
            ana.send("goes on")
            bia.next(r"ana: goes on$")

    def test_defer_of_who_has_gone(self):
        with broker_with(section("defer_submit", "after = 200ms")) as broker:
            ana, bia = self.people(broker, "ana", "bia")
            submitted = broker.stats()["messages_submitted_total"]
            ana.send("defer this")
            broker.wait_stats(
                lambda stats: stats["messages_submitted_total"] > submitted, "it was submitted"
            )
            ana.reset()
            broker.wait_stats(
                lambda stats: stats["defer_submit_stale_total"] == 1, "the late decision"
            )
            self.assertFalse([line for line in bia.sync() if "defer this" in line])

    def test_publish_defers(self):
        """One room is slow; nothing is lost there, and the others go on meanwhile."""
        slow = section("slow_home", "batch = 5\nperiod = 200ms\nroom = tar")
        with broker_with(slow, workers=4) as broker:
            ana, bia, caio = self.people(broker, "ana", "bia", "caio")
            for client in (ana, bia):
                client.send("/join tar")
                client.expect(r"tar")
                client.sync()
            broker.wait_stats(
                lambda stats: stats["slow_home_deferred_total"]
                == stats["slow_home_let_go_total"],
                "a quiet room",
            )
            for i in range(100):
                ana.send(f"slow {i}")
            caio.send("quick")
            bia.expect(r"caio: quick$")
            self.assertLess(broker.stats()["slow_home_let_go_total"], 100)
            for i in range(100):
                bia.expect(rf"ana: slow {i}$")


class Around(People):
    def test_services_whatever_the_order_of_sections(self):
        with broker_with(section("needs"), section("offers"), workers=1) as broker:
            (ana,) = self.people(broker, "ana")
            for i in (1, 2):
                ana.send("count")
                ana.expect(rf"^! .*count {i}$")
            broker.signal(signal.SIGTERM)
            ana.rest()
            ana.close()
            broker.wait_end()
            order = re.findall(r"(needs|offers): (started|stopped)", broker.text())
            self.assertEqual(
                order,
                [("offers", "started"), ("needs", "started"),
                 ("needs", "stopped"), ("offers", "stopped")],
            )  # fmt: skip
            self.assertIn("with count 3", broker.text())

    def test_offload(self):
        with broker_with(section("offload")) as broker:
            (ana,) = self.people(broker, "ana")
            ana.send("offload")
            ana.expect(r"^! .*worked on another thread$")
            ana.send("offload flood")
            ana.expect(r"^! .*64 of 100 taken$")
            broker.wait_stats(lambda stats: stats["offload_done_total"] == 65, "all work")
            ana.send("offload")
            ana.expect(r"^! .*worked on another thread$")

    def test_order_of_filters_and_life(self):
        names = ("probe_b", "probe_a", "probe_c")
        sections = [section(name) for name in names]
        with broker_with(*sections, workers=1) as broker:
            ana, bia = self.people(broker, "ana", "bia")
            ana.send("probe")
            bia.expect(r"ana: probe$")
            ana.sync()
            broker.signal(signal.SIGTERM)
            ana.rest()
            bia.rest()
            ana.close()
            bia.close()
            broker.wait_end()
            text = broker.text()
            for stage in ("accept", "input", "submit", "admit", "publish", "deliver", "init",
                          "start", "opened", "closed"):  # fmt: skip
                order = re.findall(rf"(probe_.): {stage}(?: at shutdown)?$", text, re.M)
                self.assertEqual(tuple(order[:3]), names, stage)
            for stage in ("stop", "fini"):
                order = re.findall(rf"(probe_.): {stage}$", text, re.M)
                self.assertEqual(tuple(order), tuple(reversed(names)), stage)
            way = re.findall(r"probe_b: (submit|admit|publish|deliver)$", text, re.M)
            self.assertEqual(way[:4], ["submit", "admit", "publish", "deliver"])

    def test_blame_on_a_fatal_signal(self):
        with broker_with(section("crash"), expect_status=-signal.SIGSEGV) as broker:
            (ana,) = self.people(broker, "ana")
            ana.send("crash")
            broker.wait_message(r"fatal signal 11 .*plugin crash, hook submit")
            broker.wait_end()

    def test_blame_for_a_slow_hook(self):
        with broker_with(section("slow_hook", "busy = 60ms"), workers=1) as broker:
            (ana,) = self.people(broker, "ana")
            # Hooks are timed from the turn after the first slow one on.
            for i in range(5):
                ana.send(f"slow {i}")
                ana.sync()
            broker.wait_message(r"plugin slow_hook, hook submit")

    def test_no_descriptor_left(self):
        """New ones wait while none is free, those who are here go on, and nothing spins."""
        with broker_with(section("hold_descriptors"), workers=1, descriptors=200) as broker:
            (ana,) = self.people(broker, "ana")
            broker.stats()
            ana.send("hold")
            held = int(ana.expect(r"^! .*?(\d+) descriptors are held$").group(1))
            self.assertGreater(held, 50)
            waiting = socket.socket(socket.AF_UNIX)
            waiting.connect(broker.path())
            wait_until(lambda: broker.stats()["accepts_paused_total"], "a pause")
            ana.sync()
            ana.send("release")
            ana.expect(rf"^! .*{held} descriptors are given back$")
            waiting.settimeout(60)
            self.assertIn(b"* you are ", waiting.recv(4096))
            waiting.close()


if __name__ == "__main__":
    if not PLAIN:  # the sanitizer's own handler comes first
        del Around.test_blame_on_a_fatal_signal
    unittest.main(verbosity=2)
