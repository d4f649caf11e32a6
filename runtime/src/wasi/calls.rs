//! The functions of WASI preview 1.

use std::time::SystemTime;

use wasmtime::{Caller, FuncType, Linker, Val, ValType};

use super::errno::{Errno, Failure, answer};
use super::poll::poll_oneoff;
use super::signatures;
use super::stdio::Stream;
use super::wait;
use crate::guest::{Guest, Stop, charge};

/// Buffers of one read or write; Linux takes as many (`IOV_MAX`).
const IOVECS_MAX: u32 = 1024;

/// Random bytes that are got at once; between such pieces other guests have their turn.
const RANDOM_PIECE_BYTES: usize = 64 << 10;

type Call<'a> = Caller<'a, Guest>;

/// Offers all of WASI preview 1 to the modules that `linker` links.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    add_streams(linker)?;
    add_world(linker)?;
    add_rest(linker)
}

/// Standard streams.
fn add_streams(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        signatures::MODULE,
        "fd_read",
        |mut call: Call<'_>, (fd, vectors, count, read): (u32, u32, u32, u32)| {
            Box::new(async move { answer(fd_read(&mut call, fd, vectors, count, read).await) })
        },
    )?;
    linker.func_wrap_async(
        signatures::MODULE,
        "fd_write",
        |mut call: Call<'_>, (fd, vectors, count, written): (u32, u32, u32, u32)| {
            Box::new(async move { answer(fd_write(&mut call, fd, vectors, count, written).await) })
        },
    )?;
    linker.func_wrap(signatures::MODULE, "fd_close", |mut call: Call<'_>, fd: u32| {
        let open = call.data_mut().stdio.close(fd);
        answer(open.then_some(()).ok_or(Errno::BADF.into()))
    })?;
    linker.func_wrap(
        signatures::MODULE,
        "fd_renumber",
        |mut call: Call<'_>, from, to| {
            let done = call.data_mut().stdio.renumber(from, to);
            answer(done.then_some(()).ok_or(Errno::BADF.into()))
        },
    )?;
    linker.func_wrap(
        signatures::MODULE,
        "fd_fdstat_get",
        |mut call: Call<'_>, fd, stat| answer(fd_fdstat_get(&mut call, fd, stat)),
    )?;
    linker.func_wrap(
        signatures::MODULE,
        "fd_filestat_get",
        |mut call: Call<'_>, fd, stat| answer(fd_filestat_get(&mut call, fd, stat)),
    )?;
    Ok(())
}

/// Clocks, randomness, sleeping, exit, arguments.
fn add_world(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        signatures::MODULE,
        "poll_oneoff",
        |mut call: Call<'_>, (wanted, happened, count, out): (u32, u32, u32, u32)| {
            Box::new(async move { answer(poll_oneoff(&mut call, wanted, happened, count, out).await) })
        },
    )?;
    linker.func_wrap_async(
        signatures::MODULE,
        "random_get",
        |mut call: Call<'_>, (at, len): (u32, u32)| {
            Box::new(async move { answer(random_get(&mut call, at, len).await) })
        },
    )?;
    linker.func_wrap(
        signatures::MODULE,
        "clock_res_get",
        |mut call: Call<'_>, clock: u32, out| {
            answer(clock_now(&call, clock).and_then(|_| put(&mut call, out, &1_u64.to_le_bytes())))
        },
    )?;
    linker.func_wrap(
        signatures::MODULE,
        "clock_time_get",
        |mut call: Call<'_>, clock: u32, _precision: u64, out| {
            answer(clock_now(&call, clock).and_then(|now| put(&mut call, out, &now.to_le_bytes())))
        },
    )?;
    linker.func_wrap(
        signatures::MODULE,
        "proc_exit",
        |code: u32| -> wasmtime::Result<()> { Err(Stop::Exit(code).into()) },
    )?;
    linker.func_wrap(signatures::MODULE, "sched_yield", || 0_i32)?;
    linker.func_wrap(
        signatures::MODULE,
        "args_sizes_get",
        |mut call: Call<'_>, count, bytes| {
            let size = call.data().name.len() as u32 + 1;
            answer(put_word(&mut call, count, 1).and_then(|()| put_word(&mut call, bytes, size)))
        },
    )?;
    linker.func_wrap(
        signatures::MODULE,
        "args_get",
        |mut call: Call<'_>, argv, buffer: u32| {
            let mut name = call.data().name.clone().into_bytes();
            name.push(0);
            answer(put_word(&mut call, argv, buffer).and_then(|()| put(&mut call, buffer, &name)))
        },
    )?;
    linker.func_wrap(
        signatures::MODULE,
        "environ_sizes_get",
        |mut call: Call<'_>, count, bytes| {
            answer(put_word(&mut call, count, 0).and_then(|()| put_word(&mut call, bytes, 0)))
        },
    )?;
    linker.func_wrap(signatures::MODULE, "environ_get", |_: u32, _: u32| 0_i32)?;
    Ok(())
}

/// Everything else: there are no files, no sockets and no signals.
fn add_rest(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    const OFFERED_ABOVE: [&str; 15] = [
        "fd_read",
        "fd_write",
        "fd_close",
        "fd_renumber",
        "fd_fdstat_get",
        "fd_filestat_get",
        "poll_oneoff",
        "random_get",
        "clock_res_get",
        "clock_time_get",
        "proc_exit",
        "sched_yield",
        "args_sizes_get",
        "args_get",
        "environ_sizes_get",
    ];
    let types = |letters: &str| {
        let types = letters.bytes().map(|letter| match letter {
            b'i' => ValType::I32,
            _ => ValType::I64,
        });
        types.collect::<Vec<_>>()
    };
    for (name, parameters, results) in signatures::FUNCTIONS {
        if OFFERED_ABOVE.contains(&name) || name == "environ_get" {
            continue;
        }
        let ty = FuncType::new(linker.engine(), types(parameters), types(results));
        linker.func_new(signatures::MODULE, name, ty, move |call, parameters, results| {
            let errno = refusal(name, call.data(), parameters);
            results[0] = Val::I32(i32::from(errno.0));
            Ok(())
        })?;
    }
    Ok(())
}

/// How a call on something that there isn't fails: as it would on a Unix with three pipes open.
fn refusal(name: &str, guest: &Guest, parameters: &[Val]) -> Errno {
    // `path_symlink` and `path_link` have their descriptors elsewhere; none could be right.
    let descriptor = parameters
        .first()
        .and_then(Val::i32)
        .unwrap_or(-1)
        .cast_unsigned();
    if name != "proc_raise" && guest.stdio.stream(descriptor).is_none() {
        return Errno::BADF;
    }
    match name {
        "fd_seek" | "fd_tell" | "fd_pread" | "fd_pwrite" | "fd_advise" => Errno::SPIPE,
        "fd_readdir" => Errno::NOTDIR,
        "fd_prestat_get" | "fd_prestat_dir_name" => Errno::BADF,
        "fd_sync" | "fd_datasync" | "fd_allocate" | "fd_filestat_set_size" => Errno::INVAL,
        _ if name.starts_with("path_") => Errno::NOTDIR,
        _ if name.starts_with("sock_") => Errno::NOTSOCK,
        _ => Errno::NOTSUP,
    }
}

async fn fd_read(call: &mut Call<'_>, fd: u32, vectors: u32, count: u32, read: u32) -> Result<(), Failure> {
    if call.data().stdio.stream(fd) != Some(Stream::Input) {
        return Err(Errno::BADF.into());
    }
    let wanted = measure(call, vectors, count)?;
    if wanted > 0 && !call.data_mut().stdio.poll_input()? {
        let stdio = &mut call.data_mut().stdio;
        wait::measured(&stdio.pipes.clone(), None, stdio.await_input()).await?;
    }
    let there = wanted.min(call.data().stdio.readable() as u64);
    charge(call, there + u64::from(count)).await?;
    let mut taken = 0;
    for index in 0..count {
        let (memory, guest) = view(call)?;
        let (at, len) = vector(memory, vectors, index)?;
        let piece = guest.stdio.read(slice_mut(memory, at, len)?);
        taken += piece as u32;
        if piece < len as usize {
            break;
        }
    }
    put_word(call, read, taken)
}

async fn fd_write(
    call: &mut Call<'_>,
    fd: u32,
    vectors: u32,
    count: u32,
    written: u32,
) -> Result<(), Failure> {
    let stream = match call.data().stdio.stream(fd) {
        Some(stream @ (Stream::Output | Stream::Log)) => stream,
        Some(Stream::Input) | None => return Err(Errno::BADF.into()),
    };
    let total = measure(call, vectors, count)?;
    let reported = u32::try_from(total).map_err(|_| Errno::INVAL)?;
    charge(call, total + u64::from(count)).await?;
    let (memory, guest) = view(call)?;
    for index in 0..count {
        let (at, len) = vector(memory, vectors, index)?;
        let bytes = slice(memory, at, len)?;
        match stream {
            Stream::Output => guest.stdio.write_output(bytes)?,
            _ => guest.stdio.write_log(bytes),
        }
    }
    put_word(call, written, reported)
}

/// A stream as `fdstat` describes it: of no known file type (so not a terminal), no flags, with
/// the right to read or to write.
fn fd_fdstat_get(call: &mut Call<'_>, fd: u32, stat: u32) -> Result<(), Failure> {
    const RIGHT_READ: u64 = 1 << 1;
    const RIGHT_WRITE: u64 = 1 << 6;
    let rights = match call.data().stdio.stream(fd).ok_or(Errno::BADF)? {
        Stream::Input => RIGHT_READ,
        Stream::Output | Stream::Log => RIGHT_WRITE,
    };
    let mut bytes = [0; 24];
    bytes[8..16].copy_from_slice(&rights.to_le_bytes());
    bytes[16..].copy_from_slice(&rights.to_le_bytes());
    put(call, stat, &bytes)
}

/// A stream as `filestat` describes it: all zeros.
fn fd_filestat_get(call: &mut Call<'_>, fd: u32, stat: u32) -> Result<(), Failure> {
    call.data().stdio.stream(fd).ok_or(Errno::BADF)?;
    put(call, stat, &[0; 64])
}

async fn random_get(call: &mut Call<'_>, at: u32, len: u32) -> Result<(), Failure> {
    slice(view(call)?.0, at, len)?;
    let end = at as usize + len as usize;
    let mut from = at as usize;
    while from < end {
        let to = end.min(from + RANDOM_PIECE_BYTES);
        charge(call, (to - from) as u64).await?;
        let (memory, _) = view(call)?;
        let piece = memory.get_mut(from..to).ok_or(Errno::FAULT)?;
        getrandom::fill(piece).map_err(|_| Errno::IO)?;
        from = to;
    }
    Ok(())
}

/// The time on a guest's clock in nanoseconds: since 1970, or since the call began, so that the
/// host's uptime stays its own.
pub(super) fn clock_now(call: &Call<'_>, clock: u32) -> Result<u64, Failure> {
    let since = match clock {
        0 => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| Errno::IO)?,
        1 => call.data().began.elapsed(),
        _ => return Err(Errno::INVAL.into()),
    };
    Ok(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The guest's memory and its data.
pub(super) fn view<'a>(call: &'a mut Call<'_>) -> Result<(&'a mut [u8], &'a mut Guest), Failure> {
    let memory = match call.data().memory {
        Some(memory) => memory,
        // A start function calls us before the instance is complete.
        None => call
            .get_export("memory")
            .and_then(|it| it.into_memory())
            .ok_or(Errno::FAULT)?,
    };
    Ok(memory.data_and_store_mut(call))
}

pub(super) fn slice(memory: &[u8], at: u32, len: u32) -> Result<&[u8], Errno> {
    let end = (at as usize).saturating_add(len as usize);
    memory.get(at as usize..end).ok_or(Errno::FAULT)
}

pub(super) fn slice_mut(memory: &mut [u8], at: u32, len: u32) -> Result<&mut [u8], Errno> {
    let end = (at as usize).saturating_add(len as usize);
    memory.get_mut(at as usize..end).ok_or(Errno::FAULT)
}

/// A little-endian word of the guest's memory.
pub(super) fn word(memory: &[u8], at: u32) -> Result<u32, Errno> {
    let bytes = slice(memory, at, 4)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn put(call: &mut Call<'_>, at: u32, bytes: &[u8]) -> Result<(), Failure> {
    let (memory, _) = view(call)?;
    slice_mut(memory, at, bytes.len() as u32)?.copy_from_slice(bytes);
    Ok(())
}

pub(super) fn put_word(call: &mut Call<'_>, at: u32, word: u32) -> Result<(), Failure> {
    put(call, at, &word.to_le_bytes())
}

/// The `index`th of an array of buffers: where it is, and its length.
fn vector(memory: &[u8], vectors: u32, index: u32) -> Result<(u32, u32), Errno> {
    let at = vectors.checked_add(index * 8).ok_or(Errno::FAULT)?;
    let len = word(memory, at.checked_add(4).ok_or(Errno::FAULT)?)?;
    Ok((word(memory, at)?, len))
}

/// Checks an array of buffers; gives their length in all.
fn measure(call: &mut Call<'_>, vectors: u32, count: u32) -> Result<u64, Failure> {
    if count > IOVECS_MAX {
        return Err(Errno::INVAL.into());
    }
    let (memory, _) = view(call)?;
    let mut total = 0;
    for index in 0..count {
        let (at, len) = vector(memory, vectors, index)?;
        slice(memory, at, len)?;
        total += u64::from(len);
    }
    Ok(total)
}
