//! Members of before, which asked their group for something else.
//!
//! A static member that comes back within its session is given what it had, without a rebalance,
//! whatever it subscribes to now: coordinators compare the names of assignors, not subscriptions. It
//! would get no partition of an input that was added, until a rebalance happens by chance. So it
//! takes its place once more, and leaves it; who joins then is new to the group.

use std::{
    ffi::CString,
    time::{Duration, Instant},
};

use sidestream_core::topology::Topology;

use super::{
    Error,
    admin::Admin,
    consumer::subscribed,
    error::{call_failed, fatal_client},
    names::Names,
    native::{Code, ConsumerClient, Failure, MessageBuffer, PartitionList, Rebalance},
    source::inputs,
};

/// How long each of the members is served before the next one's turn.
const TURN: Duration = Duration::from_millis(2);

impl Admin {
    /// Has the members of this agent's first `workers` workers leave their group, as far as they are
    /// in it, and fences whoever still works as one of them. Returns their names. After
    /// [`Error::Unavailable`] it can be tried again: a rebalance that is under way is waited for.
    pub fn dismiss_members(
        &self,
        topology: &Topology,
        workers: usize,
    ) -> Result<Vec<String>, Error> {
        let config = self.config();
        let known = self
            .client()
            .group_members(&config.application, self.request_timeout())
            .map_err(|failure| unknown_members(&failure))?;
        let is_known = |name: &str| known.iter().any(|member| member.name == name);
        let names = Names::new(topology).map_err(Error::Fatal)?;
        let topics: Vec<CString> =
            inputs(topology).into_iter().map(|topic| names.c_name(topic).into()).collect();
        let (mut places, mut dismissed) = (Vec::new(), Vec::new());
        for worker in (0..workers).filter(|&worker| is_known(&config.instance(worker))) {
            let client = subscribed(config, worker, &topics)?;
            places.push(Place { client, is_taken: false });
            dismissed.push(config.instance(worker));
        }
        // Nobody leaves before all have their places: that makes one rebalance of it.
        let until = Instant::now() + self.request_timeout();
        serve(&mut places, until, |place| place.is_taken)?;
        places.iter().try_for_each(Place::leave)?;
        serve(&mut places, until, |place| place.client.membership().member.is_empty())?;
        places.iter().for_each(|place| place.client.close());
        Ok(dismissed)
    }
}

/// A right that is missing is waited for, as it is when members join.
fn unknown_members(failure: &Failure) -> Error {
    let error = Error::from(call_failed("asking for the group's members", failure));
    match (failure.code, error) {
        (Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, Error::Fatal(why)) => {
            Error::Unavailable(why)
        }
        (_, error) => error,
    }
}

/// The place of a member in its group.
struct Place {
    client: ConsumerClient,
    /// It has joined, and was assigned something, or nothing; it does not answer that.
    is_taken: bool,
}

impl Place {
    fn serve(&mut self, buffer: &mut MessageBuffer) -> Result<(), Error> {
        self.client.fetch(buffer, TURN);
        buffer.clear();
        let rebalance = self.client.client().context().take_rebalance();
        self.is_taken |= matches!(rebalance, Some(Rebalance::Assign(_)));
        match self.client.client().fatal_error() {
            Some(failure) => Err(fatal_client(&failure).into()),
            None => Ok(()),
        }
    }

    /// Owns nothing, and is on its way out from here.
    fn leave(&self) -> Result<(), Error> {
        self.client.client().context().close();
        let answer = self.client.assign(&PartitionList::new());
        let left = answer.and_then(|()| self.client.unsubscribe());
        left.map_err(|failure| call_failed("leaving the group", &failure).into())
    }
}

/// Serves all of them until each is where it should be.
fn serve(
    places: &mut [Place],
    until: Instant,
    is_there: impl Fn(&Place) -> bool,
) -> Result<(), Error> {
    let mut buffer = MessageBuffer::new(1);
    while !places.iter().all(&is_there) {
        if Instant::now() >= until {
            let reason = "the group has not let members of before go yet, which asked it for \
                          something else";
            return Err(Error::Unavailable(reason.to_owned()));
        }
        places.iter_mut().try_for_each(|place| place.serve(&mut buffer))?;
    }
    Ok(())
}
