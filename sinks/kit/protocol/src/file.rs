//! Small files that settings name: certificates, keys, tokens.

use std::fs::{File, metadata};
use std::io::Read;
use std::path::Path;

/// The bytes of a file, at most `most` of them. What is no regular file is refused before it is opened: a pipe would never
/// answer, a device never end. `Err`: what was found instead, without the name of the file.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| error.to_string();
    let data = metadata(path).map_err(told)?;
    if !data.is_file() {
        return Err("expected a file, found something else".into());
    }
    let too_large = |size: u64| format!("expected a file of at most {most} bytes, found {size}");
    if data.len() > most {
        return Err(too_large(data.len()));
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    File::open(path).map_err(told)?.take(most + 1).read_to_end(&mut bytes).map_err(told)?;
    match u64::try_from(bytes.len()) {
        Ok(size) if size <= most => Ok(bytes),
        _ => Err(too_large(most + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_and_only_small_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(read(&path, 4).unwrap_err().contains("at most 4 bytes, found 5"));
        for (path, words) in [
            (dir.path(), "expected a file"),
            (Path::new("/dev/zero"), "expected a file"),
            (Path::new("/proc/self/mem"), "error"),
            (&dir.path().join("absent"), "No such file"),
        ] {
            let found = read(path, 1000).unwrap_err();
            assert!(found.contains(words), "{}: {found}", path.display());
        }
        // Files of the kernel have no size of their own.
        assert!(read(Path::new("/proc/self/status"), 100).unwrap_err().contains("at most 100 bytes"));
    }
}
