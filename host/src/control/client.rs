//! The command line's side of the control socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{
    SOCKET_FILE,
    protocol::{Call, Line, MAX_LINE},
    service::MAX_DEADLINE,
    short,
};

/// Beyond what any call may take: only a host that hangs is cut off by this.
const READ_TIME: Duration = MAX_DEADLINE.saturating_add(Duration::from_secs(30));

/// A connection to the running host.
#[derive(Debug)]
pub struct Client {
    lines: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the host that owns `data_dir`.
    pub fn connect(data_dir: &Path) -> io::Result<Self> {
        let (dir, _keep) = short(data_dir)?;
        let stream = UnixStream::connect(dir.join(SOCKET_FILE))?;
        stream.set_read_timeout(Some(READ_TIME))?;
        Ok(Self { lines: BufReader::new(stream) })
    }

    /// Sends a call.
    pub fn send(&mut self, call: &Call) -> io::Result<()> {
        let mut text = serde_json::to_vec(call).map_err(io::Error::other)?;
        text.push(b'\n');
        self.lines.get_mut().write_all(&text)
    }

    /// The next line of the answer.
    pub fn receive(&mut self) -> io::Result<Line> {
        let mut line = Vec::new();
        let length = (&mut self.lines).take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the host closed the connection"));
        }
        serde_json::from_slice(&line).map_err(io::Error::other)
    }
}
