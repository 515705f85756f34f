//! The child process: it limits itself, then evaluates one request after the other.
//!
//! It has no environment, no log and no connection except its standard input, which is a socket to
//! the process that started it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use rustix::time::{ClockId, clock_gettime};

use super::evaluate::evaluate;
use super::language::LANGUAGE;
use super::wire::{self, Answer, LONGEST_REQUEST, Request};
use super::{Cause, Wrong};

/// The stack in bytes. The CEL library recurses without a limit. The longest expression needs 42
/// MiB in debug builds, and less in releases.
const STACK: u64 = if cfg!(debug_assertions) { 128 } else { 32 } << 20;
/// The address space in bytes. In releases this includes the stack.
pub const MOST_MEMORY: u64 = if cfg!(debug_assertions) { STACK } else { 0 } + (256 << 20);
/// The least CPU time that an evaluation has, in whole seconds; the most is one second more.
pub const CPU_SECONDS: u64 = 1;

/// Evaluates requests until the other side of the socket is gone.
///
/// # Errors
/// The process cannot limit itself, or its standard input is no socket.
pub fn run() -> io::Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Before anything is changed: a person may have started this.
    socket.peer_addr()?;
    limit_itself()?;
    let answers = socket.try_clone()?;
    // At most one request is here, because the other side waits for the answer.
    let (sender, requests) = sync_channel(1);
    thread::Builder::new()
        .name("expression".to_owned())
        .stack_size(STACK as usize)
        .spawn(move || answer_all(&requests, answers))?;
    // This thread reads on during an evaluation, so the process ends when its parent does.
    while let Some(request) = wire::read(&mut socket, LONGEST_REQUEST)? {
        if sender.send(request).is_err() {
            break;
        }
    }
    Ok(())
}

fn answer_all(requests: &Receiver<Vec<u8>>, mut socket: UnixStream) -> io::Result<()> {
    let _ = &*LANGUAGE;
    for request in requests {
        allow_cpu_time()?;
        let answer = serde_json::to_vec(&answer(&request))?;
        wire::write(&mut socket, &answer)?;
    }
    Ok(())
}

fn answer(request: &[u8]) -> Answer {
    let Request { source, variables } = serde_json::from_slice(request).map_err(|error| {
        let sentence = format!("its variables cannot be read: {error}");
        Wrong::new(Cause::Values, sentence)
    })?;
    evaluate(&source, variables)
}

/// Limits memory, writes no file and no core, and ends with the thread that started the process.
fn limit_itself() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // If memory is scarce, this process is killed before the one that delivers. Not every system
    // has the file.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::As, MOST_MEMORY),
    ] {
        let most = getrlimit(resource)
            .maximum
            .map_or(most, |hard| hard.min(most));
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit)?;
    }
    Ok(())
}

/// Allows the CPU time of one evaluation. The kernel counts whole seconds since the process began.
fn allow_cpu_time() -> io::Result<()> {
    let used = u64::try_from(clock_gettime(ClockId::ProcessCPUTime).tv_sec).unwrap_or_default();
    let most = used + 1 + CPU_SECONDS;
    let Rlimit { maximum, .. } = getrlimit(Resource::Cpu);
    let limit = Rlimit {
        current: Some(maximum.map_or(most, |hard| hard.min(most))),
        maximum,
    };
    Ok(setrlimit(Resource::Cpu, limit)?)
}
