use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;

/// A group, and what its waiting members were told.
#[derive(Default)]
struct Bench {
    group: Group,
    tickets: u64,
    told: BTreeMap<Ticket, Answer>,
}

/// How a member joins.
#[derive(Clone, Copy)]
struct Who<'a> {
    id: &'a str,
    instance: Option<&'a str>,
    protocols: &'a [&'a str],
}

const NEW: Who<'_> = Who { id: "", instance: None, protocols: &["range"] };

impl Bench {
    fn collect(&mut self) {
        self.told.extend(self.group.take_answers());
    }

    fn join(&mut self, who: Who<'_>, now_ms: i64) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let protocols = who.protocols.iter().map(|name| ((*name).to_owned(), Bytes::new()));
        let join = Join {
            ticket,
            member_id: who.id.to_owned(),
            new_id: format!("member-{}", self.tickets),
            instance: who.instance.map(str::to_owned),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 30_000,
            protocol_type: "consumer".to_owned(),
            protocols: protocols.collect(),
            id_first: true,
            can_skip_assignment: false,
        };
        self.group.join(join, now_ms);
        self.collect();
        ticket
    }

    /// A new member gets its id.
    fn id(&mut self, now_ms: i64) -> String {
        let ticket = self.join(NEW, now_ms);
        let refused = self.refused(ticket);
        assert_eq!(refused.code, ResponseError::MemberIdRequired);
        refused.member_id
    }

    fn joined(&self, ticket: Ticket) -> Joined {
        match self.told.get(&ticket) {
            Some(Answer::Join(Ok(joined))) => joined.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn refused(&self, ticket: Ticket) -> JoinRefused {
        match self.told.get(&ticket) {
            Some(Answer::Join(Err(refused))) => refused.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn sync(&mut self, caller: Caller<'_>, assigned: &[&str], now_ms: i64) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let assignments = assigned.iter();
        let assignments =
            assignments.map(|id| ((*id).to_owned(), Bytes::copy_from_slice(id.as_bytes())));
        let (protocol_type, protocol) = (Some("consumer"), None);
        let assignments = assignments.collect();
        self.group.sync(Sync { ticket, caller, protocol_type, protocol, assignments }, now_ms);
        self.collect();
        ticket
    }

    fn synced(&self, ticket: Ticket) -> Result<Bytes, ResponseError> {
        match self.told.get(&ticket) {
            Some(Answer::Sync(outcome)) => outcome.clone().map(|synced| synced.assignment),
            other => panic!("{other:?}"),
        }
    }

    fn tick(&mut self, now_ms: i64) {
        self.group.tick(now_ms);
        self.collect();
    }

    /// Members of one stable generation; the first leads.
    fn stable<const N: usize>() -> (Self, [String; N]) {
        let mut bench = Self::default();
        let ids: [String; N] = std::array::from_fn(|_| bench.id(0));
        let mut tickets: Vec<_> = ids.iter().map(|id| bench.join(Who { id, ..NEW }, 0)).collect();
        if N > 1 {
            // The first one began a generation of its own.
            tickets[0] = bench.join(Who { id: &ids[0], ..NEW }, 0);
        }
        let generation = bench.joined(tickets[0]).generation;
        assert_eq!(bench.joined(tickets[0]).peers.len(), N);
        let all: Vec<_> = ids.iter().map(String::as_str).collect();
        for id in ids.iter().rev() {
            let leads = *id == ids[0];
            bench.sync(caller(id, generation), if leads { &all } else { &[] }, 0);
        }
        assert_eq!(bench.group.state(), State::Stable);
        (bench, ids)
    }
}

fn caller(member_id: &str, generation: i32) -> Caller<'_> {
    Caller { member_id, instance: None, generation }
}

#[test]
fn followers_wait_for_their_leader() {
    let (mut bench, [first, second]) = Bench::stable();
    let generation = bench.group.generation;
    let ticket = bench.join(Who { id: &first, ..NEW }, 0);
    assert!(!bench.told.contains_key(&ticket), "the second has not joined yet");
    let other = bench.join(Who { id: &second, ..NEW }, 0);
    assert_eq!(bench.joined(ticket).generation, generation + 1);
    assert!(bench.joined(other).peers.is_empty());
    let waiting = bench.sync(caller(&second, generation + 1), &[], 0);
    assert!(!bench.told.contains_key(&waiting), "the leader has not assigned yet");
    bench.sync(caller(&first, generation + 1), &[&first, &second], 0);
    assert_eq!(bench.synced(waiting), Ok(Bytes::from(second)));
}

#[test]
fn a_rebalance_ends_what_waits_for_the_one_before() {
    let (mut bench, [first, second]) = Bench::stable();
    bench.join(Who { id: &first, ..NEW }, 0);
    bench.join(Who { id: &second, ..NEW }, 0);
    let generation = bench.group.generation;
    let waiting = bench.sync(caller(&second, generation), &[], 0);
    let id = bench.id(0);
    bench.join(Who { id: &id, ..NEW }, 0);
    assert_eq!(bench.synced(waiting), Err(ResponseError::RebalanceInProgress));
    let beat = bench.group.heartbeat(&caller(&first, generation), 0);
    assert_eq!(beat, Err(ResponseError::RebalanceInProgress));
}

#[test]
fn a_rebalance_goes_on_without_who_does_not_come() {
    let (mut bench, [first, second]) = Bench::stable();
    let ticket = bench.join(Who { id: &first, ..NEW }, 0);
    bench.tick(9_000);
    bench.group.heartbeat(&caller(&second, bench.group.generation), 9_000).unwrap_err();
    bench.group.heartbeat(&caller(&second, bench.group.generation), 18_000).unwrap_err();
    bench.group.heartbeat(&caller(&second, bench.group.generation), 27_000).unwrap_err();
    bench.tick(30_000);
    assert!(!bench.told.contains_key(&ticket));
    bench.tick(30_001);
    assert_eq!(bench.joined(ticket).peers.len(), 1);
    assert!(bench.group.heartbeat(&caller(&second, 0), 0).is_err());
}

#[test]
fn silence_ends_a_membership() {
    let (mut bench, [first, second]) = Bench::stable();
    let generation = bench.group.generation;
    bench.group.heartbeat(&caller(&first, generation), 6_000).unwrap();
    bench.tick(10_000);
    assert_eq!(bench.group.members().count(), 2);
    bench.tick(10_001);
    assert_eq!((bench.group.state(), bench.group.members().count()), (State::Preparing, 1));
    let beat = bench.group.heartbeat(&caller(&second, generation), 10_001);
    assert_eq!(beat, Err(ResponseError::UnknownMemberId));
    // Who waits for an answer is not silent.
    let ticket = bench.join(Who { id: &first, ..NEW }, 10_002);
    assert_eq!(bench.joined(ticket).generation, generation + 1);
    bench.tick(99_000);
    assert_eq!((bench.group.state(), bench.group.members().count()), (State::Empty, 0));
    assert!(bench.group.is_idle());
}

#[test]
fn an_id_that_is_not_used_expires() {
    let mut bench = Bench::default();
    let id = bench.id(0);
    assert!(!bench.group.is_idle());
    bench.tick(10_001);
    assert!(bench.group.is_idle());
    let ticket = bench.join(Who { id: &id, ..NEW }, 10_001);
    assert_eq!(bench.refused(ticket).code, ResponseError::UnknownMemberId);
}

#[test]
fn a_static_member_takes_its_own_place_without_a_rebalance() {
    let mut bench = Bench::default();
    let again = Who { instance: Some("a"), ..NEW };
    let first = bench.join(again, 0);
    let old = bench.joined(first);
    bench.sync(caller(&old.member_id, old.generation), &[&old.member_id], 0);
    let ticket = bench.join(again, 0);
    let new = bench.joined(ticket);
    // It led; told that the old one leads, it assigns nothing anew.
    assert_eq!((new.generation, &new.leader), (old.generation, &old.member_id));
    assert_ne!(new.member_id, old.member_id);
    let named = |id| Caller { member_id: id, instance: Some("a"), generation: old.generation };
    let assigned = bench.sync(named(&new.member_id), &[], 0);
    assert_eq!(bench.synced(assigned), Ok(Bytes::from(old.member_id.clone())));
    let beat = bench.group.heartbeat(&named(&old.member_id), 0);
    assert_eq!(beat, Err(ResponseError::FencedInstanceId));
    bench.group.heartbeat(&named(&new.member_id), 0).unwrap();
    // By its instance alone, as an administrator does it.
    bench.group.leave(&named(""), 0).unwrap();
    assert_eq!(bench.group.state(), State::Empty);
}

#[test]
fn a_static_member_that_waits_is_shut_out_by_its_successor() {
    let (mut bench, [dynamic]) = Bench::stable();
    let who = Who { instance: Some("a"), ..NEW };
    let waiting = bench.join(who, 0);
    assert!(!bench.told.contains_key(&waiting));
    let successor = bench.join(who, 0);
    assert_eq!(bench.refused(waiting).code, ResponseError::FencedInstanceId);
    let ticket = bench.join(Who { id: &dynamic, ..NEW }, 0);
    assert_eq!(bench.joined(ticket).generation, bench.joined(successor).generation);
}

#[test]
fn the_assignor_is_one_that_all_know() {
    let (mut bench, [first]) = Bench::stable();
    let id = bench.id(0);
    let ticket = bench.join(Who { id: &id, instance: None, protocols: &["sticky"] }, 0);
    assert_eq!(bench.refused(ticket).code, ResponseError::InconsistentGroupProtocol);
    let ticket = bench.join(Who { id: &id, instance: None, protocols: &["sticky", "range"] }, 0);
    bench.join(Who { id: &first, ..NEW }, 0);
    assert_eq!(bench.joined(ticket).protocol.as_deref(), Some("range"));
}

#[test]
fn a_commit_needs_the_generation() {
    let (mut bench, [first]) = Bench::stable();
    let generation = bench.group.generation;
    let mut check = |id, generation, transactional, expected| {
        let found = bench.group.check_commit(&caller(id, generation), transactional, 0);
        assert_eq!(found, expected, "{id:?} in {generation}");
    };
    check(&first, generation, false, Ok(()));
    check(&first, generation - 1, true, Err(ResponseError::IllegalGeneration));
    check("nobody", generation, true, Err(ResponseError::UnknownMemberId));
    check("", -1, false, Err(ResponseError::UnknownMemberId));
    check("", -1, true, Ok(()));
    check(&first, -1, true, Err(ResponseError::IllegalGeneration));
}
