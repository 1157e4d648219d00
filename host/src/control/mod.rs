//! The control socket: `data_dir/busbar.sock`, mode 0660. Who may open it may operate the gateway (file rights are the
//! access control); every command is audited with the user behind the connection.

pub mod client;
pub mod protocol;
pub mod server;
pub mod service;
mod user;

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

/// Name of the socket within `data_dir`.
pub const SOCKET_FILE: &str = "busbar.sock";
/// Longest path that fits into a socket address with room for the temporary name (108 bytes on Linux).
const MAX_PATH: usize = 96;

/// `data_dir` as a short path: a long one is reached through a descriptor, because socket addresses are short. The
/// path is valid while the file lives.
fn short(data_dir: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if data_dir.as_os_str().as_bytes().len() + SOCKET_FILE.len() < MAX_PATH {
        return Ok((data_dir.to_owned(), None));
    }
    let dir = File::open(data_dir)?;
    Ok((format!("/proc/self/fd/{}", dir.as_raw_fd()).into(), Some(dir)))
}
