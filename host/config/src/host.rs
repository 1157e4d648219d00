//! `[host]`: what the core needs of it ([`busbar_core::model::Host`]) and what the process around the core needs
//! ([`HostSettings`]).

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::{Path as FilePath, PathBuf},
    time::Duration,
};

use busbar_core::model::{CommandMode, Host};

use crate::{
    context::Context,
    files,
    form::{self, Form},
    keys,
    problem::Path,
    tree::{Entry, Node, Table},
    units,
};

/// Default folder of plugins, after the executable's own.
const SYSTEM_PLUGIN_DIR: &str = "/usr/lib/busbar/plugins";

/// Default of `upgrade_timeout`.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the process around the core needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostSettings {
    /// Queues, staged plugins, tokens, audit log; absolute or relative to the working directory.
    pub data_dir: PathBuf,
    /// Searched in this order.
    pub plugin_dirs: Vec<PathBuf>,
    /// Private copies of plugins; `None`: in `data_dir`.
    pub stage_dir: Option<PathBuf>,
    /// The gateway's own log.
    pub log: Log,
    /// Length of the trial of a new plugin version.
    pub upgrade_timeout: Duration,
    /// New files in `plugin_dirs` are tried by themselves.
    pub watch_plugins: bool,
    /// The HTTP listener; `None`: no listener.
    pub admin: Option<Admin>,
    /// Reload when the files of the configuration change.
    pub watch_config: bool,
}

/// `[host] log`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// Least severe level that is logged.
    pub level: LogLevel,
    /// Text or JSON lines.
    pub format: LogFormat,
    /// Where it is written; `None`: standard error.
    pub file: Option<LogFile>,
}

/// `[host] log.file` with its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// The file; rotated files are beside it.
    pub path: PathBuf,
    /// Bytes at which it is rotated.
    pub max_size: u64,
    /// Rotated files kept.
    pub backups: u32,
}

/// Default of `log.max_size`.
const LOG_SIZE: u64 = 10_000_000;
/// Smaller files would be rotated with every few lines.
const MIN_LOG_SIZE: u64 = 64 * 1024;
/// Default of `log.backups`.
const LOG_BACKUPS: u32 = 5;

/// `[host] log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Something is broken.
    Error,
    /// Something needs attention.
    Warn,
    /// Normal operation.
    #[default]
    Info,
    /// For commissioning.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[host] log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `[host.admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Address and port.
    pub listen: SocketAddr,
    /// `/api` needs no token.
    pub anonymous_read: bool,
    /// Certificate; present whenever `listen` is beyond loopback.
    pub tls: Option<Tls>,
}

/// `[host.admin] tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the certificate chain.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// Reads `[host]`; what is wrong is reported and replaced by the default.
pub(crate) fn build(cx: &Context<'_>, base: &FilePath, entry: Option<&Entry>) -> (Host, HostSettings) {
    let path = Path::Root.key("host");
    let empty = Table::default();
    let table = entry.and_then(|entry| entry.value.as_table()).unwrap_or(&empty);
    form::check_table(cx, &path, table, keys::HOST, &|_| false);
    let read = Reader { cx, path: &path, table };
    let settings = HostSettings {
        data_dir: base.join(read.text("data_dir").unwrap_or_else(|| "data".into())),
        plugin_dirs: plugin_dirs(cx, &path, base, table.get("plugin_dirs")),
        stage_dir: read.text("stage_dir").map(|dir| base.join(dir)),
        log: log(cx, &path, base, table.table("log")),
        upgrade_timeout: read.duration("upgrade_timeout").unwrap_or(UPGRADE_TIMEOUT),
        watch_plugins: read.bool("watch_plugins").unwrap_or(true),
        admin: table.get("admin").and_then(|node| admin(cx, &path.key("admin"), base, node)),
        watch_config: read.bool("watch_config").unwrap_or(false),
    };
    (core_host(&read), settings)
}

fn core_host(read: &Reader<'_, '_>) -> Host {
    let default = Host::default();
    Host {
        name: read.text("name").filter(|name| form::is_name(name)).unwrap_or_else(machine_name),
        tick: read.duration("tick").filter(|tick| !tick.is_zero()).unwrap_or(default.tick),
        resync_parallel: read
            .table
            .get("resync_parallel")
            .and_then(Node::as_integer)
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(default.resync_parallel),
        commands: match read.text("commands").as_deref() {
            Some("locked") => CommandMode::Locked,
            _ => CommandMode::Enabled,
        },
        select_timeout: read.duration("select_timeout").unwrap_or(default.select_timeout),
        reload_timeout: read.duration("reload_timeout").unwrap_or(default.reload_timeout),
    }
}

/// Plain access to keys that were checked before.
pub(crate) struct Reader<'a, 'b> {
    pub(crate) cx: &'a Context<'b>,
    pub(crate) path: &'a Path<'a>,
    pub(crate) table: &'a Table,
}

impl Reader<'_, '_> {
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let node = self.table.get(key)?;
        self.cx.text(&self.path.key(key), node).map(|text| text.into_owned())
    }

    pub(crate) fn duration(&self, key: &str) -> Option<Duration> {
        units::duration(&self.text(key)?)
    }

    pub(crate) fn bool(&self, key: &str) -> Option<bool> {
        self.table.get(key)?.as_bool()
    }
}

/// The machine's host name, as far as it makes a name.
fn machine_name() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = text.trim().chars().take(form::MAX_NAME).collect();
    if form::is_name(&name) { name } else { Host::default().name }
}

fn plugin_dirs(cx: &Context<'_>, path: &Path<'_>, base: &FilePath, node: Option<&Node>) -> Vec<PathBuf> {
    if let Some(items) = node.and_then(Node::as_array) {
        let path = path.key("plugin_dirs");
        return items.iter().filter_map(|item| Some(base.join(&*cx.text(&path, item)?))).collect();
    }
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(FilePath::to_owned));
    beside.into_iter().chain([PathBuf::from(SYSTEM_PLUGIN_DIR)]).collect()
}

fn log(cx: &Context<'_>, path: &Path<'_>, base: &FilePath, table: Option<&Table>) -> Log {
    let Some(table) = table else { return Log::default() };
    let path = path.key("log");
    let read = Reader { cx, path: &path, table };
    Log {
        file: log_file(&read, base),
        level: match (read.text("level").as_deref(), read.bool("debug")) {
            (Some("trace"), _) => LogLevel::Trace,
            (Some("debug"), _) | (_, Some(true)) => LogLevel::Debug,
            (Some("error"), _) => LogLevel::Error,
            (Some("warn"), _) => LogLevel::Warn,
            _ => LogLevel::Info,
        },
        format: match read.text("format").as_deref() {
            Some("json") => LogFormat::Json,
            _ => LogFormat::Text,
        },
    }
}

fn log_file(read: &Reader<'_, '_>, base: &FilePath) -> Option<LogFile> {
    let Reader { cx, path, table } = read;
    let size = read.text("max_size").and_then(|text| units::size(&text));
    if let (Some(..MIN_LOG_SIZE), Some(node)) = (size, table.get("max_size")) {
        cx.problems.error(Some(node.pos), path.key("max_size"), "at least \"64KiB\"", cx.found(node));
    }
    let Some(file) = read.text("file") else {
        for name in ["max_size", "backups"] {
            if let Some(entry) = table.entry(name) {
                let expected = "log.file beside it";
                cx.problems.warning(Some(entry.key_pos), path.key(name), expected, "no file to rotate");
            }
        }
        return None;
    };
    // An empty text is how a variable of the environment says "no file".
    if file.is_empty() {
        return None;
    }
    let backups = table.get("backups").and_then(Node::as_integer).and_then(|n| u32::try_from(n).ok());
    Some(LogFile {
        path: base.join(file),
        max_size: size.unwrap_or(LOG_SIZE),
        backups: backups.unwrap_or(LOG_BACKUPS),
    })
}

fn admin(cx: &Context<'_>, path: &Path<'_>, base: &FilePath, node: &Node) -> Option<Admin> {
    let table = node.as_table()?;
    let read = Reader { cx, path, table };
    let listen_node = table.get("listen")?;
    let key = path.key("listen");
    let text = cx.text(&key, listen_node)?;
    let expected = "an address and a port such as \"127.0.0.1:8080\"";
    let Some(listen) = text.to_socket_addrs().ok().and_then(|mut list| list.next()) else {
        if form::check(cx, &key, listen_node, &Form::Text) {
            cx.problems.error(Some(listen_node.pos), key, expected, cx.found(listen_node));
        }
        return None;
    };
    let tls = table.table("tls").and_then(|tls| {
        let path = path.key("tls");
        let read = Reader { cx, path: &path, table: tls };
        let file = |key: &str| {
            let file = base.join(read.text(key)?);
            files::look(cx, tls.get(key)?.pos, &path.key(key).to_string(), &file);
            Some(file)
        };
        let (cert, key) = (file("cert"), file("key"));
        Some(Tls { cert: cert?, key: key? })
    });
    if !listen.ip().is_loopback() && table.get("tls").is_none() {
        cx.problems
            .error(
                Some(listen_node.pos),
                key,
                "a loopback address, or tls = { cert, key }",
                cx.found(listen_node),
            )
            .help("the listener leaves this machine only encrypted");
    }
    Some(Admin { listen, anonymous_read: read.bool("anonymous_read").unwrap_or(false), tls })
}
