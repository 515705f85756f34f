//! A child process, as the process that started it sees it.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::wire::{self, Answer, LONGEST_ANSWER};

/// How a child is started.
#[derive(Clone, Debug)]
pub struct Executable {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// A running child. Dropping it kills it.
pub struct ChildProcess {
    process: Child,
    socket: UnixStream,
    has_answered: bool,
}

/// How a request to a child ended.
#[derive(Debug)]
pub enum Asked {
    /// It answered.
    Answered(Answer),
    /// It died.
    Died(ExitStatus),
    /// It did not answer in time.
    Late,
}

/// What the death of a child says about the expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The expression used up its CPU time.
    CpuTime,
    /// The expression used up memory or the stack.
    Memory,
    /// Perhaps nothing: ask another child.
    Unclear,
    /// The child did not start properly.
    NotStarted,
}

impl ChildProcess {
    /// Starts a child. It gets nothing of this process except a socket.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(executable: &Executable) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&executable.program);
        command
            .args(&executable.arguments)
            .env_clear()
            // One heap, and no address space is reserved, so that the limit of memory is exact.
            .env("MALLOC_ARENA_MAX", "1")
            .env("MIMALLOC_DISALLOW_ARENA_ALLOC", "1")
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal ends evaluations only with this process.
            .process_group(0);
        Ok(Self {
            process: command.spawn()?,
            socket,
            has_answered: false,
        })
    }

    /// Whether it has not answered yet. Only then its death depends on one request alone.
    pub fn is_fresh(&self) -> bool {
        !self.has_answered
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    /// The answer is not valid, or the child does not end.
    pub fn ask(&mut self, request: &[u8], wait: Duration) -> io::Result<Asked> {
        let mut socket = Deadline {
            socket: &self.socket,
            until: Instant::now() + wait,
        };
        let asked = wire::write(&mut socket, request)
            .and_then(|()| wire::read(&mut socket, LONGEST_ANSWER));
        match asked {
            Ok(Some(answer)) => {
                self.has_answered = true;
                Ok(Asked::Answered(serde_json::from_slice(&answer)?))
            }
            Err(error) if is_timeout(&error) => Ok(Asked::Late),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error),
            // The socket closes when the process ends.
            Ok(None) | Err(_) => Ok(Asked::Died(self.process.wait()?)),
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a death says. `is_fresh`: the child had answered nothing before.
pub fn death(status: ExitStatus, is_fresh: bool) -> Death {
    let died_by = |signals: &[Signal]| {
        let is_it = |signal: &Signal| status.signal() == Some(signal.as_raw());
        signals.iter().any(is_it)
    };
    if died_by(&[Signal::XCPU]) {
        Death::CpuTime
    } else if died_by(&[Signal::ABORT, Signal::SEGV, Signal::BUS]) && is_fresh {
        Death::Memory
    } else if status.code().is_some() && is_fresh {
        Death::NotStarted
    } else {
        Death::Unclear
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// A socket whose reads and writes all end by one time.
struct Deadline<'a> {
    socket: &'a UnixStream,
    until: Instant,
}

impl Deadline<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(Some(left)),
        }
    }
}

impl Read for Deadline<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buffer)
    }
}

impl Write for Deadline<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_counts_against_the_expression_only_if_it_is_the_cause() {
        let signal = |signal: Signal| ExitStatus::from_raw(signal.as_raw());
        for (status, fresh, used) in [
            (signal(Signal::XCPU), Death::CpuTime, Death::CpuTime),
            (signal(Signal::ABORT), Death::Memory, Death::Unclear),
            (signal(Signal::SEGV), Death::Memory, Death::Unclear),
            (signal(Signal::KILL), Death::Unclear, Death::Unclear),
            (signal(Signal::TERM), Death::Unclear, Death::Unclear),
            (
                ExitStatus::from_raw(2 << 8),
                Death::NotStarted,
                Death::Unclear,
            ),
        ] {
            assert_eq!(death(status, true), fresh, "{status}");
            assert_eq!(death(status, false), used, "{status}");
        }
    }
}
