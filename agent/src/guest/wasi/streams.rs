//! `wasi:io`: standard input is at its end, standard output and error become log lines, and
//! everything one can wait for is there.

use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};

use super::{Context, name};
use crate::guest::{host::Host, telemetry::Stream};

/// How many bytes a guest may write at a time.
const WRITE_BYTES_MAX: u64 = 64 << 10;

/// An error of a stream. None is ever made.
pub(super) enum IoError {}

/// Something to wait for. All are ready, so all are alike.
pub(super) enum Pollable {}

/// Standard input.
pub(super) enum InputStream {}

/// Standard output or standard error.
pub(super) enum OutputStream {}

impl OutputStream {
    /// The handle of standard output.
    pub(super) const OUT: u32 = 1;
    /// The handle of standard error.
    pub(super) const ERR: u32 = 2;
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

type Outcome<T> = Result<T, StreamError>;
type Output = Resource<OutputStream>;
type Input = Resource<InputStream>;

/// Defines the interfaces.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut error = linker.instance(&name("io/error"))?;
    error.resource("error", ResourceType::host::<IoError>(), |_, _| Ok(()))?;
    error.func_wrap("[method]error.to-debug-string", |_, (_error,): (Resource<IoError>,)| {
        Ok((String::new(),))
    })?;
    add_poll(linker)?;
    add_input(linker)?;
    add_output(linker)?;
    add_splice(linker)
}

fn add_poll(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut poll = linker.instance(&name("io/poll"))?;
    poll.resource("pollable", ResourceType::host::<Pollable>(), |_, _| Ok(()))?;
    poll.func_wrap("[method]pollable.ready", |_, (_one,): (Resource<Pollable>,)| Ok((true,)))?;
    poll.func_wrap("[method]pollable.block", |_, (_one,): (Resource<Pollable>,)| Ok(()))?;
    poll.func_wrap("poll", |_, (all,): (Vec<Resource<Pollable>>,)| {
        Ok(((0..).take(all.len()).collect::<Vec<u32>>(),))
    })
}

fn add_input(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut streams = linker.instance(&name("io/streams"))?;
    streams.resource("input-stream", ResourceType::host::<InputStream>(), |_, _| Ok(()))?;
    for read in ["read", "blocking-read"] {
        let method = format!("[method]input-stream.{read}");
        streams.func_wrap(&method, |_, (_input, _count): (Input, u64)| {
            Ok((Outcome::<Vec<u8>>::Err(StreamError::Closed),))
        })?;
    }
    for skip in ["skip", "blocking-skip"] {
        let method = format!("[method]input-stream.{skip}");
        streams.func_wrap(&method, |_, (_input, _count): (Input, u64)| {
            Ok((Outcome::<u64>::Err(StreamError::Closed),))
        })?;
    }
    streams.func_wrap("[method]input-stream.subscribe", |_, (_input,): (Input,)| {
        Ok((Resource::<Pollable>::new_own(0),))
    })
}

fn add_output(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut streams = linker.instance(&name("io/streams"))?;
    streams.resource("output-stream", ResourceType::host::<OutputStream>(), |_, _| Ok(()))?;
    streams.func_wrap("[method]output-stream.check-write", |_, (_output,): (Output,)| {
        Ok((Outcome::Ok(WRITE_BYTES_MAX),))
    })?;
    for write in ["write", "blocking-write-and-flush"] {
        let method = format!("[method]output-stream.{write}");
        streams.func_wrap(&method, |host: Context<'_>, (output, bytes): (Output, Vec<u8>)| {
            print(host, &output, &bytes);
            Ok((Outcome::Ok(()),))
        })?;
    }
    for flush in ["flush", "blocking-flush"] {
        let method = format!("[method]output-stream.{flush}");
        streams.func_wrap(&method, |_, (_output,): (Output,)| Ok((Outcome::Ok(()),)))?;
    }
    for zeroes in ["write-zeroes", "blocking-write-zeroes-and-flush"] {
        let method = format!("[method]output-stream.{zeroes}");
        streams.func_wrap(&method, |_, (_output, _count): (Output, u64)| Ok((Outcome::Ok(()),)))?;
    }
    streams.func_wrap("[method]output-stream.subscribe", |_, (_output,): (Output,)| {
        Ok((Resource::<Pollable>::new_own(0),))
    })
}

fn add_splice(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut streams = linker.instance(&name("io/streams"))?;
    for splice in ["splice", "blocking-splice"] {
        let method = format!("[method]output-stream.{splice}");
        streams.func_wrap(&method, |_, (_output, _input, _count): (Output, Input, u64)| {
            Ok((Outcome::<u64>::Err(StreamError::Closed),))
        })?;
    }
    Ok(())
}

fn print(mut host: Context<'_>, output: &Output, bytes: &[u8]) {
    let stream = match output.rep() {
        OutputStream::ERR => Stream::Err,
        _ => Stream::Out,
    };
    host.data_mut().telemetry.print(stream, bytes);
}
