//! Display of a link as text, in columns, and as JSON.

use libgeneve::wire::encapsulation::{Encapsulation, InnerProtocol};
use serde_json::{Map, Value, json};

use super::link::{consumed, dropped, drops};
use super::output::Show;
use super::style::{FamilyOption, OutputStyle};
use crate::config::value::{
    DefaultAction, InnerValue, LabelsUse, LinkSegmentation, ModeValue, MtuValue, TtlValue,
};
use crate::control::protocol::{LinkInfo, TrafficInfo};

impl Show for LinkInfo {
    fn text(&self, style: &OutputStyle) -> String {
        let settings = &self.settings;
        let mut text = format!(
            "{}: {}: <{}> mtu {} state {} qlen {}",
            self.ifindex,
            style.name(&settings.name),
            self.flags.join(","),
            self.mtu,
            style.operstate(&self.operstate),
            self.txqlen
        );
        text += if self.is_tap() {
            "\n    link/ether"
        } else {
            "\n    link/none"
        };
        match &self.lladdr {
            Some(mac) if self.is_tap() => {
                text += &format!(" {} brd ff:ff:ff:ff:ff:ff", style.address(mac));
            }
            Some(mac) => text += &format!(" lladdr {}", style.address(mac)),
            None => {}
        }
        text += &format!("\n    {}", self.tunnel(style));
        for address in self.addresses(style) {
            let family = FamilyOption::of(address.addr()).word();
            text += &format!("\n    {family} {}", style.prefix(address));
        }
        if let Some(cause) = &self.cause {
            text += &format!("\n    {}: {cause}", style.health(false, &self.state));
        }
        if style.details {
            text += &format!("\n    mtu {}", self.mtu_sum.text);
            text += &format!("\n    io {}", self.io);
        }
        if style.statistics > 0 {
            text += &statistics(style, &self.traffic);
            if let Some(undelivered) = &self.undelivered {
                text += &format!(
                    "\n    {}",
                    undelivered.sentence(self.settings.name.as_str())
                );
            }
        }
        text
    }

    fn brief(&self, style: &OutputStyle) -> String {
        let id = self.settings.id.map(|id| format!("id {id}"));
        let name = format!("{:<16}", self.settings.name.as_str());
        let state = format!("{:<14}", self.operstate);
        let addresses: Vec<_> = self.addresses(style).map(|a| style.prefix(a)).collect();
        format!(
            "{} {} {:<12} {}",
            style.name(name),
            style.operstate(&state),
            id.unwrap_or_default(),
            addresses.join(" ")
        )
    }

    fn json(&self, style: &OutputStyle) -> Value {
        if style.brief {
            return json!({
                "ifname": self.settings.name,
                "operstate": self.operstate,
                "id": self.settings.id,
                "addr_info": self.addr_info(style),
            });
        }
        let mut link = Map::new();
        link.insert("ifindex".into(), json!(self.ifindex));
        link.insert("ifname".into(), json!(self.settings.name));
        link.insert("flags".into(), json!(self.flags));
        link.insert("mtu".into(), json!(self.mtu));
        link.insert("operstate".into(), json!(self.operstate));
        link.insert("txqlen".into(), json!(self.txqlen));
        let kind = if self.is_tap() { "ether" } else { "none" };
        link.insert("link_type".into(), json!(kind));
        if let (true, Some(mac)) = (self.is_tap(), &self.lladdr) {
            link.insert("address".into(), json!(mac));
            link.insert("broadcast".into(), json!("ff:ff:ff:ff:ff:ff"));
        }
        if let Some(mac) = &self.lladdr {
            link.insert("lladdr".into(), json!(mac));
        }
        link.insert(
            "linkinfo".into(),
            json!({ "info_kind": self.encapsulation().name(), "info_data": self.info_data() }),
        );
        link.insert("addr_info".into(), self.addr_info(style));
        if let Some(netns) = &self.settings.netns {
            link.insert("netns".into(), json!(netns));
        }
        link.insert("state".into(), json!(self.state));
        if let Some(cause) = &self.cause {
            link.insert("cause".into(), json!(cause));
        }
        let s = &self.settings;
        for (key, value) in [
            ("ingress", s.ingress.map(|v| json!(v))),
            ("egress", s.egress.map(|v| json!(v))),
            ("labels", s.labels.map(|v| json!(v))),
            ("allowed", (!s.allowed.is_empty()).then(|| json!(s.allowed))),
            ("option", (!s.option.is_empty()).then(|| json!(s.option))),
            ("segmentation", s.segmentation.map(|v| json!(v))),
            ("rate", s.rate.map(|v| json!(v))),
            ("burst", s.burst.map(|v| json!(v))),
        ] {
            if let Some(value) = value {
                link.insert(key.into(), value);
            }
        }
        link.insert("mtu_sum".into(), json!(self.mtu_sum));
        link.insert("io".into(), json!(self.io));
        if style.statistics > 0 {
            let t = &self.traffic;
            let total =
                |drops: &std::collections::BTreeMap<String, u64>| drops.values().sum::<u64>();
            link.insert(
                "stats64".into(),
                json!({
                    "rx": { "bytes": t.rx_bytes, "packets": t.rx_packets, "errors": 0, "dropped": total(&t.drops_ingress) },
                    "tx": { "bytes": t.tx_bytes, "packets": t.tx_packets, "errors": 0, "dropped": total(&t.drops_egress) },
                }),
            );
            link.insert("drops".into(), drops(t));
            link.insert("consumed".into(), consumed(t));
            if let Some(undelivered) = &self.undelivered {
                link.insert("undelivered".into(), json!(undelivered));
            }
        }
        Value::Object(link)
    }
}

impl LinkInfo {
    /// Addresses of the interface that belong to the requested family.
    fn addresses<'a>(&'a self, style: &'a OutputStyle) -> impl Iterator<Item = &'a ipnet::IpNet> {
        let all = self.addresses.iter().map(|address| &address.0);
        all.filter(|address| style.wants(address.addr()))
    }

    /// Settings in the format of `ip -d link`; without details only those that differ from the default.
    fn tunnel(&self, style: &OutputStyle) -> String {
        let s = &self.settings;
        let encapsulation = self.encapsulation();
        let mut words = vec![encapsulation.name().to_owned()];
        let mut say = |word: &str, value: String| words.push(format!("{word} {value}"));
        if let Some(id) = s.id {
            say("id", id.to_string());
        }
        if let Some(mode) = s
            .mode
            .filter(|mode| style.details || *mode != ModeValue::Ip)
        {
            say("mode", mode.to_string());
        }
        let expected = match self.is_tap() {
            true => InnerProtocol::Ethernet,
            false => encapsulation.default_inner(),
        };
        let usual = |inner: &InnerValue| style.details || inner.0 != expected;
        if let Some(inner) = s.inner.filter(usual) {
            say("inner", inner.to_string());
        }
        for (word, address) in [("remote", s.remote), ("local", s.local)] {
            if let Some(address) = address {
                say(word, style.address(address));
            }
        }
        say("ttl", s.ttl.unwrap_or_default().to_string());
        if style.details || s.tos.unwrap_or_default() != Default::default() {
            say("tos", s.tos.unwrap_or_default().to_string());
        }
        if style.details || s.df.unwrap_or_default() != Default::default() {
            say("df", s.df.unwrap_or_default().to_string());
        }
        let port = s.dstport.unwrap_or(encapsulation.port());
        say("dstport", port.to_string());
        if let (true, Some(range)) = (style.details, &s.srcport) {
            say("srcport", range.to_string());
        }
        let usual = |who: &LinkSegmentation| style.details || *who != LinkSegmentation::Auto;
        if let Some(who) = s.segmentation.filter(usual) {
            say("segmentation", who.to_string());
        }
        if let (MtuValue::Fixed(mtu), true) = (s.mtu.unwrap_or_default(), style.details) {
            say("mtu", mtu.to_string());
        }
        for prefix in &s.allowed {
            say("allowed", style.prefix(&prefix.0));
        }
        if let Some(netns) = &s.netns {
            say("netns", netns.clone());
        }
        for (word, action) in [("ingress", s.ingress), ("egress", s.egress)] {
            if let Some(action) = action.filter(|a| style.details || *a != DefaultAction::Allow) {
                say(word, action.to_string());
            }
        }
        let usual = |labels: &LabelsUse| style.details || *labels != LabelsUse::Optional;
        if let Some(labels) = s.labels.filter(usual) {
            say("labels", labels.to_string());
        }
        for option in &s.option {
            say("option", option.to_string());
        }
        if let Some(rate) = s.rate {
            say("rate", rate.to_string());
        }
        if let Some(burst) = s.burst {
            say("burst", burst.to_string());
        }
        for (word, value, usual) in [
            ("ageing", s.ageing, 300),
            ("maxaddress", s.maxaddress, 4096),
            ("floodrate", s.floodrate, 1000),
        ] {
            if let Some(value) = value.filter(|value| style.details || *value != usual) {
                say(word, value.to_string());
            }
        }
        let mut flag = |on: Option<bool>, word: &str, usual: bool| {
            let on = on.unwrap_or(usual);
            if style.details || on != usual {
                words.push(if on {
                    word.to_owned()
                } else {
                    format!("no{word}")
                });
            }
        };
        if s.learning.is_some() {
            flag(s.learning, "learning", true);
        }
        flag(s.udpcsum, "udpcsum", true);
        flag(s.udp6zerocsumtx, "udp6zerocsumtx", false);
        flag(s.udp6zerocsumrx, "udp6zerocsumrx", false);
        words.join(" ")
    }

    fn is_tap(&self) -> bool {
        self.settings.mode == Some(ModeValue::Ethernet)
    }

    fn encapsulation(&self) -> Encapsulation {
        self.settings.kind.unwrap_or_default().into()
    }

    fn info_data(&self) -> Value {
        let s = &self.settings;
        let mut data = Map::new();
        data.insert("id".into(), json!(s.id));
        for (key, value) in [
            ("mode", s.mode.map(|v| json!(v))),
            ("inner", s.inner.map(|v| json!(v))),
            ("learning", s.learning.map(|v| json!(v))),
            ("ageing", s.ageing.map(|v| json!(v))),
            ("limit", s.maxaddress.map(|v| json!(v))),
            ("floodrate", s.floodrate.map(|v| json!(v))),
        ] {
            if let Some(value) = value {
                data.insert(key.into(), value);
            }
        }
        for (v4, v6, address) in [
            ("remote", "remote6", s.remote),
            ("local", "local6", s.local),
        ] {
            if let Some(address) = address {
                data.insert(
                    if address.is_ipv4() { v4 } else { v6 }.into(),
                    json!(address),
                );
            }
        }
        let ttl = match s.ttl.unwrap_or_default() {
            TtlValue(libgeneve::vpc::Ttl::Fixed(ttl)) => json!(ttl),
            // As `ip` shows it.
            TtlValue(libgeneve::vpc::Ttl::Auto) => json!(0),
            word => json!(word),
        };
        data.insert("ttl".into(), ttl);
        data.insert("tos".into(), json!(s.tos.unwrap_or_default()));
        data.insert("df".into(), json!(s.df.unwrap_or_default()));
        data.insert("port".into(), json!(s.dstport));
        data.insert("srcport".into(), json!(s.srcport));
        data.insert("udp_csum".into(), json!(s.udpcsum));
        data.insert("udp_zero_csum6_tx".into(), json!(s.udp6zerocsumtx));
        data.insert("udp_zero_csum6_rx".into(), json!(s.udp6zerocsumrx));
        if let Some(inner) = s.inner {
            data.insert(
                "inner_proto_inherit".into(),
                json!(inner.0 == InnerProtocol::Ip),
            );
        }
        Value::Object(data)
    }

    fn addr_info(&self, style: &OutputStyle) -> Value {
        let all = self.addresses(style).map(|address| {
            json!({
                "family": FamilyOption::of(address.addr()).word(),
                "local": address.addr(),
                "prefixlen": address.prefix_len(),
            })
        });
        Value::Array(all.collect())
    }
}

/// The two tables of `ip -s`, followed by the drops by reason.
fn statistics(style: &OutputStyle, traffic: &TrafficInfo) -> String {
    let t = traffic;
    let table = |name: &str, bytes: u64, packets: u64, dropped: u64| {
        let cells = [
            style.number(bytes),
            style.number(packets),
            "0".into(),
            style.number(dropped),
        ];
        let heads = ["bytes", "packets", "errors", "dropped"];
        let mut head = format!("\n    {name}:");
        let mut row = "\n       ".to_owned();
        for (at, (h, cell)) in heads.iter().zip(cells).enumerate() {
            let width = h.len().max(cell.len()).max(if at == 0 { 10 } else { 7 });
            head += &format!(" {h:>width$}");
            row += &format!(" {cell:>width$}");
        }
        head + &row
    };
    table(
        "RX",
        t.rx_bytes,
        t.rx_packets,
        t.drops_ingress.values().sum(),
    ) + &table(
        "TX",
        t.tx_bytes,
        t.tx_packets,
        t.drops_egress.values().sum(),
    ) + &dropped(style, t)
}
