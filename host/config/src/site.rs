//! Putting the parts together: devices, then what refers to them, then the plugins that all of it needs.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path as FilePath,
    rc::Rc,
};

use busbar_contract::describe::PluginKind;
use busbar_core::model::{Device, Host, Isolation, MEMORY_LIMIT, Plugin, Sink, Site};

use crate::{
    context::Context,
    device::{self, Made},
    document::{Document, unknown},
    effective::{DeviceNotes, SinkNotes},
    form,
    host::Reader,
    index::Index,
    judge::Judge,
    keys,
    library::{Library, check_defaults},
    only,
    problem::Path,
    shared, sink,
    tree::{Entry, Node},
    units,
};

const PLUGIN_KINDS: [PluginKind; 2] = [PluginKind::Driver, PluginKind::Sink];

/// The site and how its sinks were configured.
pub(crate) struct MadeSite {
    pub(crate) site: Site,
    pub(crate) devices: Vec<DeviceNotes>,
    pub(crate) sinks: Vec<SinkNotes>,
}

/// Builds everything below `[host]`.
pub(crate) fn build(cx: &Context<'_>, document: &Document, host: Host, base: &FilePath) -> MadeSite {
    let judge = Judge::default();
    let library = Library::new(&document.templates);
    let sink_names = sink_plugin_names(cx, document);
    let drivers = texts(cx, &document.devices, "driver");
    check_defaults(cx, &document.defaults, &drivers.iter().map(|name| &**name).collect::<Vec<_>>());
    let builder = device::Builder {
        cx,
        judge: &judge,
        document,
        library: &library,
        tick: host.tick,
        sink_names: &sink_names,
    };
    let devices = builder.all();
    library.report_unused(cx);
    let index = Index::new(&devices);
    interlocks(cx, &devices, &index);
    shared::check(cx, &devices);
    let names: Vec<String> = texts(cx, &document.sinks, "name").iter().map(ToString::to_string).collect();
    let builder = sink::Builder {
        cx,
        judge: &judge,
        library: &library,
        devices: &devices,
        index: &index,
        names: &names,
    };
    let sinks = builder.all(&document.sinks);
    drop(index);
    let (sinks, notes): (Vec<Sink>, Vec<SinkNotes>) =
        sinks.into_iter().map(|made| (made.model, made.notes)).unzip();
    let (devices, device_notes): (Vec<Device>, Vec<DeviceNotes>) =
        devices.into_iter().map(|made| (made.model, made.notes)).unzip();
    let plugins = plugins(cx, &document.plugins, &devices, &sinks, base);
    let mut site = Site { host, plugins, devices, sinks };
    let kept = only::apply(cx, document.host.as_ref(), &mut site);
    let mut kept = kept.into_iter();
    let devices = device_notes.into_iter().filter(|_| kept.next().unwrap_or(true)).collect();
    MadeSite { site, devices, sinks: notes }
}

/// The texts under `key` of a list of tables, without repetition.
fn texts(cx: &Context<'_>, nodes: &[Node], key: &str) -> Vec<Rc<str>> {
    let mut out: Vec<Rc<str>> = Vec::new();
    let mut seen = HashSet::new();
    for node in nodes {
        let Some(value) = node.as_table().and_then(|table| table.get(key)) else { continue };
        let Some(text) = cx.text(&Path::Root, value) else { continue };
        let text: Rc<str> = Rc::from(&*text);
        if seen.insert(text.clone()) {
            out.push(text);
        }
    }
    out
}

/// Tables with these names in devices and points belong to sinks.
fn sink_plugin_names(cx: &Context<'_>, document: &Document) -> HashSet<String> {
    let mut names: HashSet<String> = cx.plugins.names(PluginKind::Sink).into_iter().collect();
    names.extend(texts(cx, &document.sinks, "plugin").iter().map(ToString::to_string));
    names.retain(|name| form::find(keys::DEVICE, name).is_none() && form::find(keys::POINT, name).is_none());
    names
}

/// Interlocks may name points of any device, so they are checked when all are known.
fn interlocks(cx: &Context<'_>, devices: &[Made], index: &Index<'_>) {
    for made in devices {
        for (point, source) in made.model.points.iter().zip(&made.points) {
            let (Some(interlock), Some(pos)) = (&point.interlock, source.interlock) else { continue };
            if let Err(help) = index.point(&interlock.point) {
                let key = format!("device[{}].points[{}].interlock.point", made.model.name, point.name);
                let found = format!("{:?}", interlock.point);
                cx.problems.error(Some(pos), key, "an existing point", found).help(help);
            }
        }
    }
}

/// Every plugin that a device or a sink names, with the keys of `[plugins.NAME]`.
fn plugins(
    cx: &Context<'_>,
    entries: &[Entry],
    devices: &[Device],
    sinks: &[Sink],
    base: &FilePath,
) -> Vec<Plugin> {
    let mut used: BTreeMap<(&str, &str), PluginKind> = BTreeMap::new();
    for device in devices {
        used.insert((device.driver.as_str(), "driver"), PluginKind::Driver);
    }
    for sink in sinks {
        used.insert((sink.plugin.as_str(), "sink"), PluginKind::Sink);
    }
    let mut out: Vec<Plugin> = used
        .iter()
        .filter(|((name, _), _)| !name.is_empty())
        .map(|((name, _), kind)| plain(name, *kind))
        .collect();
    for entry in entries {
        configured(cx, entry, base, &mut out);
    }
    out
}

fn plain(name: &str, kind: PluginKind) -> Plugin {
    Plugin {
        name: name.to_owned(),
        kind,
        path: None,
        sha256: None,
        isolation: Isolation::InProcess,
        workers: 1,
        memory_limit: MEMORY_LIMIT,
    }
}

/// Below this a plugin's runtime does not even start.
const MIN_MEMORY_LIMIT: u64 = 32 * 1024 * 1024;

fn memory_limit(read: &Reader<'_, '_>) -> Option<u64> {
    let node = read.table.get("memory_limit")?;
    let limit = units::size(&read.text("memory_limit")?)?;
    if limit < MIN_MEMORY_LIMIT {
        let (cx, path) = (read.cx, read.path.key("memory_limit"));
        cx.problems.error(Some(node.pos), path, "at least \"32MiB\"", cx.found(node));
    }
    Some(limit)
}

/// Lays `[plugins.NAME]` over the plugins of that name. A driver and a sink of one name share it, apart from the file,
/// which belongs to the one that `kind` names.
fn configured(cx: &Context<'_>, entry: &Entry, base: &FilePath, out: &mut [Plugin]) {
    let Some(table) = entry.value.as_table() else { return };
    let root = Path::Root.key("plugins");
    let path = root.key(&entry.key);
    form::check_table(cx, &path, table, keys::PLUGIN, &|_| false);
    let read = Reader { cx, path: &path, table };
    let sha256 = read.text("sha256").map(|text| text.to_ascii_lowercase());
    if let (Some(text), Some(node)) = (&sha256, table.get("sha256"))
        && (text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        cx.problems
            .error(Some(node.pos), path.key("sha256"), "64 hex digits", cx.found(node))
            .help("sha256sum FILE");
    }
    let same_name = out.iter().filter(|plugin| plugin.name == *entry.key).count();
    let kind = read.text("kind").and_then(|word| PLUGIN_KINDS.into_iter().find(|kind| kind.as_str() == word));
    if let Some(file) = ["path", "sha256"].into_iter().find_map(|key| table.entry(key))
        && same_name > 1
        && kind.is_none()
    {
        let expected = "kind = \"driver\" or \"sink\" beside it";
        let found = format!("a driver and a sink named {:?}", &*entry.key);
        cx.problems.error(Some(file.key_pos), path.key(&file.key), expected, found);
    }
    let memory_limit = memory_limit(&read);
    for plugin in out.iter_mut().filter(|plugin| plugin.name == *entry.key) {
        if kind.is_none_or(|kind| kind == plugin.kind) {
            plugin.path = read.text("path").map(|path| base.join(path).display().to_string());
            plugin.sha256.clone_from(&sha256);
        }
        if read.text("isolation").as_deref() == Some("process") {
            plugin.isolation = Isolation::Process;
        }
        if let Some(workers) = table.get("workers").and_then(Node::as_integer) {
            plugin.workers = usize::try_from(workers).unwrap_or(1);
        }
        if let Some(limit) = memory_limit {
            plugin.memory_limit = limit;
        }
    }
    if same_name == 0 {
        let known: Vec<String> = out.iter().map(|plugin| plugin.name.clone()).collect();
        let found = format!("{:?}", &*entry.key);
        cx.problems
            .warning(Some(entry.key_pos), path, "a plugin that a device or a sink names", found)
            .help(unknown(&entry.key, known.iter()));
    }
}
