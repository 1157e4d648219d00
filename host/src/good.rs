//! The configuration that ran last, kept in `data_dir/config`: a copy of every file, and `last-good.json` which says
//! where each came from. Written when a configuration was accepted, never read to be run: a bad file makes the start
//! fail (G11), and the copies only say in which files it differs from what ran.
//!
//! The copies are as secret as the files: mode 0600. They are bounded by the bounds of the configuration itself.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use busbar_config::Loaded;
use busbar_contract::value::rfc3339;
use serde::{Deserialize, Serialize};

const FOLDER: &str = "config";
const INDEX: &str = "last-good.json";

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    /// When it was accepted.
    accepted: String,
    files: Vec<Kept>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    path: PathBuf,
    copy: String,
}

/// Keeps copies of all files. What was kept before stays until the new index is in place.
pub(crate) fn keep(data_dir: &Path, loaded: &Loaded) -> io::Result<()> {
    let folder = data_dir.join(FOLDER);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let accepted = rfc3339(i64::try_from(now).unwrap_or(i64::MAX));
    let mut index = Index { accepted, files: Vec::new() };
    for (number, source) in loaded.sources.files().iter().enumerate() {
        let name =
            source.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        // Two sets take turns, so that an index never names a copy of another time.
        let copy = format!("{:03}-{}-{name}", number, now % 1_000_000_007);
        write(&folder.join(&copy), source.text().as_bytes())?;
        index.files.push(Kept { path: source.path.clone(), copy });
    }
    let text = serde_json::to_vec_pretty(&index)?;
    let temporary = folder.join("last-good.tmp");
    write(&temporary, &text)?;
    fs::rename(&temporary, folder.join(INDEX))?;
    forget_others(&folder, &index)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn forget_others(folder: &Path, index: &Index) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != INDEX && !index.files.iter().any(|kept| kept.copy == name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// In which files `loaded` differs from the configuration that ran last, as one sentence for the operator; `None` when
/// nothing was kept, or nothing differs.
pub(crate) fn differences(data_dir: &Path, loaded: &Loaded) -> Option<String> {
    let folder = data_dir.join(FOLDER);
    let index: Index = serde_json::from_slice(&fs::read(folder.join(INDEX)).ok()?).ok()?;
    let now = loaded.sources.files();
    let mut words = Vec::new();
    for source in now {
        let kept = index.files.iter().find(|kept| kept.path == source.path);
        let path = source.path.display();
        match kept.map(|kept| (folder.join(&kept.copy), fs::read_to_string(folder.join(&kept.copy)))) {
            Some((_, Ok(text))) if text == source.text() => {}
            Some((copy, _)) => words.push(format!("{path} (it was {})", copy.display())),
            None => words.push(format!("{path} (it was not part of it)")),
        }
    }
    let gone = index.files.iter().filter(|kept| !now.iter().any(|source| source.path == kept.path));
    words.extend(gone.map(|kept| format!("{} (it is missing)", kept.path.display())));
    (!words.is_empty()).then(|| {
        format!(
            "the configuration that ran last, accepted {}, differs in: {}",
            index.accepted,
            words.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use busbar_config::{NoPlugins, Options, load};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_ran_last_is_kept_and_compared() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plugins.toml");
        let data = dir.path().join("data");
        fs::write(&file, "[host]\nname = \"a\"\n").unwrap();
        let loaded = load(&file, &NoPlugins, &Options::default());
        assert_eq!(differences(&data, &loaded), None, "nothing ran yet");
        keep(&data, &loaded).unwrap();
        keep(&data, &loaded).unwrap();
        assert_eq!(differences(&data, &loaded), None);
        assert_eq!(fs::read_dir(data.join(FOLDER)).unwrap().count(), 2, "one copy and the index");
        for entry in fs::read_dir(data.join(FOLDER)).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0);
        }
        fs::write(&file, "[host]\nname = 5\n").unwrap();
        let text = differences(&data, &load(&file, &NoPlugins, &Options::default())).unwrap();
        assert!(text.contains("plugins.toml (it was ") && text.contains("accepted 20"), "{text}");
    }
}
