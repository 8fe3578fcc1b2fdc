"""What names exist and what they mean (Kubernetes DNS specification 1.1.0): asked as a client asks, read by dnslib."""

from __future__ import annotations

from typing import Any

import dnslib

from k3s.dns import wire
from k3s.dns.answer import FORWARD, Follow, Reply, Responder
from k3s.dns.zone import Zone, entry


def service(name: str, **spec: Any) -> dict[str, Any]:
    """A service in namespace default."""
    return {"metadata": {"namespace": "default", "name": name}, "spec": spec}


def slice_of(*endpoints: dict[str, Any], port: int = 8080, family: str = "IPv4") -> dict[str, Any]:
    """A slice with one port named http."""
    return {
        "addressType": family,
        "ports": [{"name": "http", "protocol": "TCP", "port": port}],
        "endpoints": list(endpoints),
    }


HTTP = [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]
DB = slice_of(
    {"addresses": ["10.42.0.5"], "hostname": "db-0", "conditions": {"ready": True}},
    {"addresses": ["10.42.0.6"], "hostname": "db-1", "conditions": {"ready": False}},
    {"addresses": ["10.42.0.7"], "conditions": {}},
    port=5432,
)


def zone() -> Zone:
    """A cluster with a service of each sort."""
    made = Zone("cluster.local", "10.43.0.10")
    dual = ["10.43.0.20", "fd00:43::20"]
    made.set_service("default/web", entry(service("web", clusterIP=dual[0], clusterIPs=dual, ports=HTTP), [DB]))
    made.set_service("default/db", entry(service("db", clusterIP="None", ports=HTTP), [DB]))
    made.set_service("default/none", entry(service("none", clusterIP="None"), []))
    made.set_service("default/far", entry(service("far", type="ExternalName", externalName="Example.org"), []))
    near = "web.default.svc.cluster.local"
    made.set_service("default/near", entry(service("near", type="ExternalName", externalName=near), []))
    made.set_node("Node-1", {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.2"}]}})
    return made


def ask(name: str, type: str = "A", at: Zone | None = None) -> dnslib.DNSRecord:
    """The reply, parsed by somebody else's parser."""
    query = wire.parse_query(bytes(dnslib.DNSRecord.question(name, type).pack()))
    found = Responder(at or zone()).answer(query, 1232)
    assert isinstance(found, Reply), found
    return dnslib.DNSRecord.parse(found.data)


def answers(name: str, type: str = "A") -> list[str]:
    """The data of the answers, sorted."""
    reply = ask(name, type)
    assert reply.header.rcode == wire.NOERROR
    assert all(each.rname == name or type in ("A", "AAAA") for each in reply.rr)
    return sorted(str(each.rdata) for each in reply.rr)


def code(name: str, type: str = "A") -> str:
    """NXDOMAIN, NODATA (with the SOA that makes it count for 5 s), or OK."""
    reply = ask(name, type)
    if not reply.rr:
        assert [(each.rtype, each.ttl, str(each.rname)) for each in reply.auth] == [(wire.SOA, 5, "cluster.local.")]
        assert reply.header.aa == 1
        return "NXDOMAIN" if reply.header.rcode == wire.NXDOMAIN else "NODATA"
    return "OK"


def test_cluster_addresses() -> None:
    """A service has the addresses of its families, for five seconds."""
    assert answers("web.default.svc.cluster.local") == ["10.43.0.20"]
    assert answers("WEB.default.svc.cluster.local", "AAAA") == ["fd00:43::20"]
    assert ask("web.default.svc.cluster.local").rr[0].ttl == 5
    assert code("web.default.svc.cluster.local", "MX") == "NODATA"


def test_headless_services() -> None:
    """The ready endpoints, by the service's name and each by its own; no ready endpoint, no name."""
    assert answers("db.default.svc.cluster.local") == ["10.42.0.5", "10.42.0.7"]
    assert answers("db-0.db.default.svc.cluster.local") == ["10.42.0.5"]
    assert answers("10-42-0-7.db.default.svc.cluster.local") == ["10.42.0.7"]
    assert code("db-1.db.default.svc.cluster.local") == "NXDOMAIN"
    assert code("none.default.svc.cluster.local") == "NXDOMAIN"
    assert code("db.default.svc.cluster.local", "AAAA") == "NODATA"


def test_ports() -> None:
    """SRV records say port and host of each, and bring the addresses along."""
    reply = ask("_http._tcp.web.default.svc.cluster.local", "SRV")
    assert [str(each.rdata) for each in reply.rr] == ["0 100 80 web.default.svc.cluster.local."]
    assert sorted(str(each.rdata) for each in reply.ar) == ["10.43.0.20", "fd00:43::20"]
    assert answers("_http._tcp.db.default.svc.cluster.local", "SRV") == [
        "0 50 5432 10-42-0-7.db.default.svc.cluster.local.",
        "0 50 5432 db-0.db.default.svc.cluster.local.",
    ]
    assert len(answers("web.default.svc.cluster.local", "SRV")) == 2
    assert code("_http._udp.web.default.svc.cluster.local", "SRV") == "NXDOMAIN"
    assert code("_other._tcp.web.default.svc.cluster.local", "SRV") == "NXDOMAIN"
    assert code("_http._tcp.web.default.svc.cluster.local") == "NODATA"
    assert code("_tcp.web.default.svc.cluster.local") == "NODATA"


def test_numbers_that_are_no_ports_are_left_out() -> None:
    """The API takes any number as the port of a slice."""
    made = Zone("cluster.local")
    odd = [slice_of({"addresses": ["10.42.0.5"], "hostname": "db-0"}, port=port) for port in (70000, -1, 5432)]
    made.set_service("default/db", entry(service("db", clusterIP="None", ports=HTTP), odd))
    found = ask("_http._tcp.db.default.svc.cluster.local", "SRV", made)
    assert [record.rdata.port for record in found.rr] == [5432]


def test_reverse_names() -> None:
    """Cluster addresses and headless endpoints have one; other addresses are not ours to know."""
    assert answers("20.0.43.10.in-addr.arpa", "PTR") == ["web.default.svc.cluster.local."]
    assert answers("5.0.42.10.in-addr.arpa", "PTR") == ["db-0.db.default.svc.cluster.local."]
    six = ".".join(reversed("fd00004300000000" + "0000000000000020")) + ".ip6.arpa"
    assert answers(six, "PTR") == ["web.default.svc.cluster.local."]
    for other in ("6.0.42.10.in-addr.arpa", "1.0.0.127.in-addr.arpa", "in-addr.arpa", "x.ip6.arpa", "1.2.ip6.arpa"):
        query = wire.parse_query(bytes(dnslib.DNSRecord.question(other, "PTR").pack()))
        assert Responder(zone()).answer(query, 512) is FORWARD


def test_external_names() -> None:
    """An alias; a target in the cluster is resolved at once, one outside is for upstream."""
    assert answers("far.default.svc.cluster.local", "CNAME") == ["example.org."]
    assert answers("near.default.svc.cluster.local") == ["10.43.0.20", "web.default.svc.cluster.local."]
    query = wire.parse_query(bytes(dnslib.DNSRecord.question("far.default.svc.cluster.local").pack()))
    found = Responder(zone()).answer(query, 512)
    assert isinstance(found, Follow) and wire.labels(found.target) == ("example", "org")


def test_aliases_in_a_circle_end() -> None:
    """Two services that are aliases of each other give an answer."""
    made = Zone("cluster.local")
    for one, other in (("a", "b"), ("b", "a")):
        target = f"{other}.default.svc.cluster.local"
        made.set_service(f"default/{one}", entry(service(one, type="ExternalName", externalName=target), []))
    assert ask("a.default.svc.cluster.local", at=made).header.rcode == wire.NOERROR


def test_pods() -> None:
    """A pod's name is its address with dashes."""
    assert answers("10-42-0-9.default.pod.cluster.local") == ["10.42.0.9"]
    assert answers("fd00--9.default.pod.cluster.local", "AAAA") == ["fd00::9"]
    assert code("10-42-0-9.default.pod.cluster.local", "AAAA") == "NODATA"
    assert code("10-42-0-999.default.pod.cluster.local") == "NXDOMAIN"


def test_names_about_the_server() -> None:
    """Version of the specification, name server, SOA, and nodes by their bare name."""
    assert answers("dns-version.cluster.local", "TXT") == ['"1.1.0"']
    assert answers("ns.dns.cluster.local") == ["10.43.0.10"]
    assert answers("cluster.local", "NS") == ["ns.dns.cluster.local."]
    assert ask("cluster.local", "SOA").rr[0].rtype == wire.SOA
    assert answers("node-1") == ["192.0.2.2"]


def test_names_that_are_not() -> None:
    """Within the domain the zone says no; elsewhere it has no say. A name above an existing one exists."""
    assert code("nothing.default.svc.cluster.local") == "NXDOMAIN"
    assert code("web.nowhere.svc.cluster.local") == "NXDOMAIN"
    assert code("example.org.default.svc.cluster.local") == "NXDOMAIN"
    assert code("example.org.cluster.local") == "NXDOMAIN"
    assert code("default.svc.cluster.local") == "NODATA"
    assert code("svc.cluster.local") == "NODATA"
    query = wire.parse_query(bytes(dnslib.DNSRecord.question("example.org").pack()))
    assert Responder(zone()).answer(query, 512) is FORWARD


def test_changes_show_at_once() -> None:
    """What was answered a moment ago is not answered again after a change, forwards or backwards."""
    made = zone()
    responder = Responder(made)

    def addresses() -> list[str]:
        query = wire.parse_query(bytes(dnslib.DNSRecord.question("db.default.svc.cluster.local").pack()))
        found = responder.answer(query, 512)
        assert isinstance(found, Reply)
        return sorted(str(each.rdata) for each in dnslib.DNSRecord.parse(found.data).rr)

    assert addresses() == ["10.42.0.5", "10.42.0.7"]
    other = slice_of({"addresses": ["10.42.0.8"]})
    made.set_service("default/db", entry(service("db", clusterIP="None"), [other]))
    assert addresses() == ["10.42.0.8"]
    assert made.lookup(("5", "0", "42", "10", "in-addr", "arpa"), wire.PTR) is None
    made.set_service("default/db", None)
    made.set_service("default/db", None)
    assert addresses() == []


def test_addresses_take_turns() -> None:
    """The first of several addresses changes from reply to reply."""
    responder = Responder(zone())
    query = wire.parse_query(bytes(dnslib.DNSRecord.question("db.default.svc.cluster.local").pack()))
    first = set()
    for _ in range(4):
        found = responder.answer(query, 512)
        assert isinstance(found, Reply)
        first.add(str(dnslib.DNSRecord.parse(found.data).rr[0].rdata))
    assert first == {"10.42.0.5", "10.42.0.7"}


def test_what_nobody_answers() -> None:
    """Transfers, other classes, other operations and ANY are refused by their own codes."""

    def rcode(**changes: int) -> int:
        record = dnslib.DNSRecord.question("web.default.svc.cluster.local")
        record.q.qtype = changes.get("type", 1)
        record.q.qclass = changes.get("klass", 1)
        record.header.opcode = changes.get("opcode", 0)
        if "version" in changes:
            record.add_ar(dnslib.EDNS0(version=changes["version"]))
        found = Responder(zone()).answer(wire.parse_query(bytes(record.pack())), 512)
        assert isinstance(found, Reply)
        parsed = dnslib.DNSRecord.parse(found.data)
        return int(parsed.header.rcode) | (parsed.ar[0].ttl >> 24 << 4 if parsed.ar else 0)

    assert rcode(type=wire.AXFR) == wire.REFUSED
    assert rcode(klass=3) == wire.REFUSED
    assert rcode(opcode=4) == wire.NOTIMP
    assert rcode(type=wire.ANY) == wire.NOTIMP
    assert rcode(version=1) == wire.BADVERS
