//! How trials end when hand-overs or the disk fail: with a scripted core and a real data directory.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use busbar_core::model::PluginKind;
use busbar_loader::Launcher;

use super::{
    super::{Runs, Upgrades},
    *,
};
use crate::edge::CoreHandle;

const KEY: &str = "driver/modbus";
/// Numbers of the versions: the one before, in a worker, in the host's process.
const BEFORE: usize = 0;
const WORKER: usize = 1;
const INSIDE: usize = 2;

/// What hand-overs answer, and what was asked.
#[derive(Default)]
struct Script {
    answers: VecDeque<Result<(), &'static str>>,
    asked: Vec<String>,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Scripted {
    fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }
}

impl Way for Scripted {
    fn core(&self) -> &CoreHandle {
        unreachable!("nothing is asked here")
    }
    fn add(&self, _: &Serving, _: &Probed, _: Isolation) -> Result<usize, String> {
        unreachable!("the tests add")
    }
    fn hand_over(
        &self,
        request: HandoverRequest,
        _: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<(), String> {
        let mut script = self.lock();
        script.asked.push(format!("{} to {}", request.from, request.to));
        script.answers.pop_front().expect("an answer").map_err(str::to_owned)
    }
    fn accepted(&self, plugin: usize) {
        self.lock().asked.push(format!("accepted {plugin}"));
    }
    fn retire(&self, plugin: usize) {
        self.lock().asked.push(format!("retire {plugin}"));
    }
    fn serving(&self, _: &str) -> Result<Serving, String> {
        Err("the core did not answer".to_owned())
    }
}

struct Stage {
    dir: tempfile::TempDir,
    way: Scripted,
    upgrader: Upgrader,
    _stop: crossbeam_channel::Sender<()>,
}

fn version(sha256: &str) -> Version {
    Version { sha256: sha256.into(), version: format!("v-{sha256}"), since: String::new() }
}

impl Stage {
    /// Version `old` serves.
    fn new(answers: &[Result<(), &'static str>]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let way = Scripted::default();
        way.lock().answers.extend(answers.iter().copied());
        let settings = Settings {
            data_dir: dir.path().into(),
            stage_dir: dir.path().join("stage"),
            plugin_dirs: Vec::new(),
            watch: true,
            timeout: Duration::from_secs(1),
            launcher: Launcher::default(),
        };
        let mut active = Active::default();
        active.plugin.entry(KEY.into()).or_default().accept(version("old"));
        active.write(dir.path()).unwrap();
        let history = History::open(dir.path());
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let upgrader =
            Upgrader::new(settings, active, history, Arc::default(), Box::new(way.clone()), stopped);
        Self { dir, way, upgrader, _stop: stop }
    }

    /// The trial of version `new`, from its beginning on disk to its end.
    fn trial(&mut self) -> Result<String, Failure> {
        let (new, serving) = (version("new"), serving());
        self.upgrader.begin_trial(KEY, &new)?;
        assert_eq!(self.upgrader.board.upgrading().as_deref(), Some(KEY));
        let add = |isolation| Ok(if isolation == Isolation::Process { WORKER } else { INSIDE });
        let result = self.upgrader.trial(KEY, &serving, &new, &add, &|_| ());
        self.end(result)
    }

    fn end(&mut self, result: Result<Good, Failure>) -> Result<String, Failure> {
        let result = self.upgrader.end_trial(KEY, &serving(), version("new"), result, &|_| ());
        assert_eq!(self.upgrader.board.upgrading(), None);
        result
    }

    fn asked(&self) -> Vec<String> {
        self.way.lock().asked.clone()
    }

    fn on_disk(&self) -> Record {
        Active::read(self.dir.path()).0.plugin[KEY].clone()
    }

    fn last_event(&self) -> String {
        History::open(self.dir.path()).of(KEY).next_back().unwrap().event.clone()
    }
}

fn serving() -> Serving {
    let model = model::Plugin {
        name: "modbus".into(),
        kind: PluginKind::Driver,
        path: None,
        sha256: None,
        isolation: Isolation::InProcess,
        workers: 1,
        memory_limit: model::MEMORY_LIMIT,
    };
    Serving { serving: BEFORE, model }
}

#[test]
fn a_good_trial_is_accepted_on_disk_before_the_old_version_ends() {
    let mut stage = Stage::new(&[Ok(()), Ok(())]);
    stage.trial().unwrap();
    assert_eq!(stage.asked(), ["0 to 1", "1 to 2", "retire 1", "accepted 2", "retire 0"]);
    assert_eq!(stage.on_disk().accepted, version("new"));
    assert_eq!(stage.last_event(), "accepted");
}

#[test]
fn a_failed_move_inwards_returns_to_the_version_before() {
    let mut stage = Stage::new(&[Ok(()), Err("device m: no answer"), Ok(())]);
    let failure = stage.trial().unwrap_err();
    assert!(matches!(&failure, Failure::Bad(text) if text.contains("v-old runs")), "{failure}");
    assert_eq!(stage.asked(), ["0 to 1", "1 to 2", "1 to 0", "retire 1", "retire 2"]);
    assert!(stage.on_disk().has_failed("new"));
    assert_eq!(stage.last_event(), "taken_back");
}

#[test]
fn a_failed_way_back_is_told_and_not_called_taken_back() {
    let mut stage = Stage::new(&[Ok(()), Err("device m: no answer"), Err("the new version does not run")]);
    let text = stage.trial().unwrap_err().to_string();
    for part in ["v-new", "until the restart", "device m: no answer", "the new version does not run"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("v-old runs"), "{text}");
    assert_eq!(stage.asked(), ["0 to 1", "1 to 2", "1 to 0", "accepted 1", "retire 2"], "the worker stays");
    let shown = stage.upgrader.board.of(KEY).unwrap();
    assert_eq!(shown.adrift.unwrap().sha256, "new");
    assert_eq!(stage.last_event(), "not_taken_back");
    assert_eq!(stage.on_disk().accepted, version("old"), "what the next start takes");

    // A version that is accepted later ends that.
    stage.way.lock().answers.extend([Ok(()), Ok(())]);
    stage.trial().unwrap();
    assert_eq!(stage.upgrader.board.of(KEY).unwrap().adrift, None);
}

#[test]
fn what_cannot_be_written_is_not_accepted_and_no_verdict() {
    let mut stage = Stage::new(&[Ok(()), Ok(()), Ok(())]);
    stage.upgrader.begin_trial(KEY, &version("new")).unwrap();
    // The disk is lost during the trial: a file stands where the folder was.
    let folder = active::folder(stage.dir.path());
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    let failure = stage.end(Ok(Good { plugin: WORKER, note: String::new() })).unwrap_err();
    assert!(matches!(&failure, Failure::Untried(text) if text.contains("active.toml")), "{failure}");
    assert_eq!(stage.asked(), ["1 to 0", "retire 1"], "the version before never ended");
    let record = stage.upgrader.record(KEY).clone();
    assert_eq!(record.accepted, version("old"));
    assert!(record.fresh.is_none() && !record.has_failed("new"));
    assert!(stage.upgrader.board.of(KEY).unwrap().history.iter().all(|event| event.event != "accepted"));
}

#[test]
fn a_busy_core_and_a_full_disk_leave_the_file_to_be_tried_again() {
    let mut stage = Stage::new(&[]);
    stage.upgrader.begin_trial(KEY, &version("new")).unwrap();
    let failure = stage.end(Err(Failure::of("it did not start within 45 s".into()))).unwrap_err();
    assert!(matches!(failure, Failure::Untried(_)), "{failure}");
    assert!(!stage.on_disk().has_failed("new"));

    // The core does not answer: a dropped file is not dealt with.
    let file = stage.dir.path().join("libbusbar_driver_modbus.so");
    fs::write(&file, "bytes").unwrap();
    stage.upgrader.deployed(KEY, &file);
    assert_eq!(stage.on_disk().deployed, "");
    assert!(stage.upgrader.again.is_due(KEY, Instant::now() + Duration::from_secs(3600)));
}

#[test]
fn what_a_reload_brought_is_known_at_once_and_its_keys_apply() {
    let mut stage = Stage::new(&[]);
    let runs = |key: &str, sha256: &str| Runs {
        key: key.into(),
        sha256: sha256.into(),
        version: format!("v-{sha256}"),
        file: "/plugins/x.so".into(),
    };
    let (upgrades, orders) = Upgrades::new();
    let news = |brought| Reloaded { timeout: Duration::from_secs(7), brought, ..Reloaded::default() };
    // Two reloads while the thread is busy: nothing of the first is forgotten.
    upgrades.reloaded(news(vec![runs("sink/mqtt", "m")]));
    upgrades.reloaded(news(vec![runs("driver/dlms", "d"), runs(KEY, "old")]));
    assert!(orders.told.try_recv().is_ok());
    let news = orders.reloaded.lock().unwrap().take().unwrap();
    stage.upgrader.reloaded(news);
    assert_eq!(stage.upgrader.settings.timeout, Duration::from_secs(7));
    assert!(!stage.upgrader.settings.watch && !stage.upgrader.is_awake());
    let on_disk = Active::read(stage.dir.path()).0.plugin;
    for (key, sha256) in [("sink/mqtt", "m"), ("driver/dlms", "d"), (KEY, "old")] {
        assert_eq!(on_disk[key].accepted.sha256, sha256, "{key}");
        assert_eq!(stage.upgrader.board.of(key).unwrap().accepted.sha256, sha256, "{key}");
    }
    assert!(on_disk[KEY].previous.is_none(), "it ran before: no news");
    assert_eq!(on_disk["driver/dlms"].deployed, "d", "the file is no new one");
}
