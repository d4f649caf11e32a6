//! `poll_oneoff`: sleeping, and waiting for input.

use std::time::Duration;

use super::calls::{clock_now, put_word, slice, slice_mut, view};
use super::errno::{Errno, Failure};
use super::stdio::Stream;
use super::wait;
use crate::guest::{Guest, charge};

/// Subscriptions of one call. A program has three streams and rarely more than one timer.
const SUBSCRIPTIONS_MAX: u32 = 64;

const SUBSCRIPTION_BYTES: u32 = 48;
const EVENT_BYTES: u32 = 32;

type Call<'a> = wasmtime::Caller<'a, Guest>;

/// What a guest waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// This long from now.
    Clock(Duration),
    /// Input, or its end.
    Input,
    /// Room to write: there always is.
    Room,
    /// Something that there isn't.
    Nothing(Errno),
}

#[derive(Clone, Copy, Debug)]
struct Subscription {
    userdata: [u8; 8],
    /// 0 clock, 1 reading, 2 writing.
    tag: u8,
    wanted: Wanted,
}

/// Waits until at least one of the subscriptions has happened, and writes an event for each that
/// has.
pub(super) async fn poll_oneoff(
    call: &mut Call<'_>,
    wanted: u32,
    happened: u32,
    count: u32,
    out: u32,
) -> Result<(), Failure> {
    if count == 0 || count > SUBSCRIPTIONS_MAX {
        return Err(Errno::INVAL.into());
    }
    charge(call, u64::from(count * (SUBSCRIPTION_BYTES + EVENT_BYTES))).await?;
    let subscriptions = (0..count)
        .map(|index| read(call, wanted.saturating_add(index * SUBSCRIPTION_BYTES)))
        .collect::<Result<Vec<_>, _>>()?;
    let slept = rest(call, &subscriptions).await?;
    let mut events = 0;
    for subscription in &subscriptions {
        if let Some(event) = event(call, subscription, slept)? {
            let (memory, _) = view(call)?;
            let at = happened.saturating_add(events * EVENT_BYTES);
            slice_mut(memory, at, EVENT_BYTES)?.copy_from_slice(&event);
            events += 1;
        }
    }
    put_word(call, out, events)
}

/// Waits for the first of the subscriptions. Gives how long was slept for.
async fn rest(call: &mut Call<'_>, subscriptions: &[Subscription]) -> Result<Duration, Failure> {
    let mut shortest: Option<Duration> = None;
    let mut for_input = false;
    for subscription in subscriptions {
        match subscription.wanted {
            Wanted::Clock(delay) => {
                shortest = Some(shortest.map_or(delay, |other| other.min(delay)));
            }
            Wanted::Input if !call.data_mut().stdio.poll_input()? => for_input = true,
            Wanted::Input | Wanted::Room | Wanted::Nothing(_) => return Ok(Duration::ZERO),
        }
    }
    let stdio = &mut call.data_mut().stdio;
    let pipes = stdio.pipes.clone();
    match (shortest, for_input) {
        (Some(Duration::ZERO), _) => Ok(Duration::ZERO),
        (Some(delay), false) => {
            wait::measured(&pipes, Some(delay), tokio::time::sleep(delay)).await;
            Ok(delay)
        }
        (Some(delay), true) => {
            let input = tokio::time::timeout(delay, stdio.await_input());
            match wait::measured(&pipes, Some(delay), input).await {
                Ok(input) => Ok(input.map(|()| Duration::ZERO)?),
                Err(_) => Ok(delay),
            }
        }
        (None, _) => {
            wait::measured(&pipes, None, stdio.await_input()).await?;
            Ok(Duration::ZERO)
        }
    }
}

/// The event of a subscription, if it has happened.
fn event(
    call: &mut Call<'_>,
    subscription: &Subscription,
    slept: Duration,
) -> Result<Option<[u8; EVENT_BYTES as usize]>, Failure> {
    let (errno, bytes) = match subscription.wanted {
        Wanted::Clock(delay) if delay <= slept => (Errno::SUCCESS, 0),
        Wanted::Input if call.data_mut().stdio.poll_input()? => {
            (Errno::SUCCESS, call.data().stdio.readable() as u64)
        }
        Wanted::Room => (Errno::SUCCESS, u64::from(u16::MAX)),
        Wanted::Nothing(errno) => (errno, 0),
        Wanted::Clock(_) | Wanted::Input => return Ok(None),
    };
    let mut event = [0; EVENT_BYTES as usize];
    event[..8].copy_from_slice(&subscription.userdata);
    event[8..10].copy_from_slice(&errno.0.to_le_bytes());
    event[10] = subscription.tag;
    event[16..24].copy_from_slice(&bytes.to_le_bytes());
    Ok(Some(event))
}

fn read(call: &mut Call<'_>, at: u32) -> Result<Subscription, Failure> {
    let mut raw = [0; SUBSCRIPTION_BYTES as usize];
    raw.copy_from_slice(slice(view(call)?.0, at, SUBSCRIPTION_BYTES)?);
    let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let mut userdata = [0; 8];
    userdata.copy_from_slice(&raw[..8]);
    let stream = call.data().stdio.stream(word(16));
    let wanted = match (raw[8], stream) {
        (0, _) => clock(call, word(16), long(24), raw[40])?,
        (1, Some(Stream::Input)) => Wanted::Input,
        (2, Some(Stream::Output | Stream::Log)) => Wanted::Room,
        (1 | 2, _) => Wanted::Nothing(Errno::BADF),
        _ => return Err(Errno::INVAL.into()),
    };
    Ok(Subscription {
        userdata,
        tag: raw[8],
        wanted,
    })
}

/// A clock's time as a delay from now.
fn clock(call: &Call<'_>, id: u32, timeout: u64, flags: u8) -> Result<Wanted, Failure> {
    const ABSOLUTE: u8 = 1;
    let now = match clock_now(call, id) {
        Ok(now) => now,
        Err(Failure::Errno(errno)) => return Ok(Wanted::Nothing(errno)),
        Err(stop) => return Err(stop),
    };
    let delay = if flags & ABSOLUTE == 0 {
        timeout
    } else {
        timeout.saturating_sub(now)
    };
    Ok(Wanted::Clock(Duration::from_nanos(delay)))
}
