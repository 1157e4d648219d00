//! Where the second generation sent its values: MQTT, as far as the file says it; the rest has no counterpart here.
//!
//! The keys stand in `[DEFAULT]` or `[MAINMODBUS]` with the prefix `mqtt_`, or in `[MQTT]` with or without it. Reading and
//! sending never depended on each other, so a file without any of them is complete.

use crate::{
    findings::{At, Findings, show},
    ini::{Ini, Item},
    plan::{Line, Plan, Sink},
    reader::Reader,
    toml,
};

/// Its section.
const MQTT: &str = "MQTT";
/// What starts like this belongs to something that Busbar has not: a local database, a central one, remote provisioning.
const FOREIGN: [&str; 4] = ["influx", "crm", "gateway_", "replica"];
/// MQTT over TLS, by convention.
const TLS_PORT: u64 = 8883;
/// Topic where the file names none.
const BASE: &str = "gatewayems/modbus";

/// Names of one setting, with and without prefix.
struct Setting {
    prefixed: &'static [&'static str],
    plain: &'static [&'static str],
}

const ACTIVE: Setting = Setting { prefixed: &["mqtt_active"], plain: &["active", "enabled"] };
const HOST: Setting =
    Setting { prefixed: &["mqtt_host", "mqtt_broker", "mqtt_server"], plain: &["host", "broker", "server"] };
const PORT: Setting = Setting { prefixed: &["mqtt_port"], plain: &["port"] };
const USER: Setting = Setting { prefixed: &["mqtt_user", "mqtt_username"], plain: &["user", "username"] };
const PASSWORD: Setting = Setting { prefixed: &["mqtt_password"], plain: &["password"] };
const TOPIC: Setting = Setting {
    prefixed: &["mqtt_topic", "mqtt_base", "mqtt_base_topic", "mqtt_topic_base"],
    plain: &["topic", "base", "base_topic", "topic_base"],
};
const QOS: Setting = Setting { prefixed: &["mqtt_qos"], plain: &["qos"] };
const TLS: Setting = Setting { prefixed: &["mqtt_tls", "mqtt_use_tls"], plain: &["tls", "use_tls"] };
const CA: Setting = Setting { prefixed: &["mqtt_ca", "mqtt_ca_cert"], plain: &["ca", "ca_cert"] };
const UUID: Setting = Setting { prefixed: &["gateway_uuid"], plain: &[] };
const CLIENT: Setting = Setting { prefixed: &["mqtt_client_id"], plain: &["client_id"] };

/// A section that is no device.
pub(crate) fn is_known(section: &str) -> bool {
    section == MQTT || is_foreign(&section.to_ascii_lowercase())
}

/// A key or section without counterpart.
pub(crate) fn is_foreign(key: &str) -> bool {
    FOREIGN.iter().any(|start| key.starts_with(start)) && !UUID.prefixed.contains(&key)
}

/// Adds the sinks; says whether a secret of the file went into them.
pub(crate) fn plan(
    findings: &mut Findings,
    ini: &Ini,
    main: &Reader<'_>,
    general: &Reader<'_>,
    plan: &mut Plan,
) -> bool {
    let own = ini.section(MQTT).map(|section| Reader::new(ini, section));
    let places = Places { own: own.as_ref(), main, general };
    let secret = mqtt(findings, &places, plan);
    if let Some(own) = &own {
        own.unknown_keys_except(findings, is_foreign);
    }
    foreign(findings, ini);
    if plan.sinks.is_empty() {
        findings.warning(
            main.here(),
            "MQTT_ACTIVE = true with MQTT_HOST",
            "no output",
            "add a [[sink]] to the new file",
        );
        plan.tail.push("No output was active in the old file. For the old gateway's MQTT records:".into());
        plan.tail.push("[[sink]]".into());
        plan.tail.push("name = \"mqtt\"".into());
        plan.tail.push("plugin = \"mqtt\"".into());
        plan.tail.push(format!(
            "settings = {{ url = \"mqtts://HOST:8883\", format = \"ems\", base = \"{BASE}\" }}"
        ));
    }
    secret
}

struct Places<'a, 'i> {
    own: Option<&'a Reader<'i>>,
    main: &'a Reader<'i>,
    general: &'a Reader<'i>,
}

impl<'a, 'i> Places<'a, 'i> {
    /// The first place that has the setting, its key there, its value. All names are asked for, so that none is unknown.
    fn find(&self, setting: &Setting) -> Option<(&'a Reader<'i>, &'static str, Item)> {
        let own = self.own.into_iter().flat_map(|own| {
            let keys = setting.prefixed.iter().chain(setting.plain);
            keys.filter_map(move |key| Some((own, *key, own.own(key)?)))
        });
        let rest = [self.main, self.general].into_iter().flat_map(|reader| {
            setting.prefixed.iter().filter_map(move |key| Some((reader, *key, reader.own(key)?)))
        });
        let all: Vec<_> = own.chain(rest).collect();
        all.into_iter().next()
    }
}

fn mqtt(findings: &mut Findings, places: &Places<'_, '_>, plan: &mut Plan) -> bool {
    let found = [ACTIVE, HOST, PORT, USER, PASSWORD, TOPIC, QOS, TLS, CA, CLIENT, UUID]
        .map(|setting| places.find(&setting));
    let [active, host, port, user, password, base, qos, tls, ca, client, uuid] = found;
    let on = match &active {
        Some((reader, key, _)) => reader.switch(findings, key),
        None => host.as_ref().map(|_| true),
    };
    if on != Some(true) {
        return false;
    }
    let Some((reader, key, item)) = host else {
        if let Some((reader, key, item)) = active {
            findings.error(reader.at(key, item.span), "MQTT_HOST beside it", "none", "");
        }
        return false;
    };
    let before = findings.errors();
    let bad = |symbol: char| symbol.is_whitespace() || matches!(symbol, '/' | '@' | ':' | ',');
    if item.text.contains(bad) {
        findings.error(
            reader.at(key, item.span),
            "a host name or address",
            show(&item.text),
            "the port has a key of its own",
        );
    }
    let port = port.and_then(|(reader, key, _)| reader.number(findings, key, (1, 65_535)));
    let tls = tls
        .and_then(|(reader, key, _)| reader.switch(findings, key))
        .unwrap_or(port == Some(TLS_PORT) || ca.is_some());
    let qos = qos.and_then(|(reader, key, _)| reader.number(findings, key, (0, 2)));
    if before != findings.errors() {
        return false;
    }
    let (scheme, usual) = if tls { ("mqtts", TLS_PORT) } else { ("mqtt", 1883) };
    let url = format!("{scheme}://{}:{}", item.text, port.unwrap_or(usual));
    let base = base.map_or_else(|| BASE.to_owned(), |(_, _, item)| item.text.trim_matches('/').to_owned());
    let mut settings =
        vec![("url", toml::text(&url)), ("format", toml::quoted("ems")), ("base", toml::text(&base))];
    settings.extend(qos.map(|qos| ("qos", qos.to_string())));
    settings.extend(client.map(|(_, _, item)| ("client_id", toml::text(&item.text))));
    settings.extend(uuid.map(|(_, _, item)| ("gateway_uuid", toml::text(&item.text))));
    settings.extend(user.map(|(_, _, item)| ("username", toml::text(&item.text))));
    let secret = password.is_some();
    settings.extend(password.map(|(_, _, item)| ("password", toml::text(&item.text))));
    if let Some((_, _, item)) = ca.filter(|_| tls) {
        settings.push(("tls", toml::table(&[("ca", toml::text(&item.text))])));
    }
    plan.sinks.push(Sink {
        origin: vec!["The records of the old gateway, under its topics.".into()],
        lines: vec![
            Line::new("name", toml::quoted("mqtt")),
            Line::new("plugin", toml::quoted("mqtt")),
            Line::new("settings", toml::table(&settings)),
        ],
    });
    secret
}

/// One warning for each thing that has no counterpart.
fn foreign(findings: &mut Findings, ini: &Ini) {
    for section in &ini.sections {
        let at = At { span: Some(section.span), section: &section.name, ..At::default() };
        if is_foreign(&section.name.to_ascii_lowercase()) {
            findings.warning(
                at,
                "settings that have a counterpart",
                format!("[{}]", section.name),
                "left out",
            );
            continue;
        }
        for entry in section.entries.iter().filter(|entry| is_foreign(&entry.key)) {
            let at = At { span: Some(entry.key_span), key: &entry.key, ..at };
            findings.warning(at, "a key that has a counterpart", show(&entry.key), "left out");
        }
    }
}
