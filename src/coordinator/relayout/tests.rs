//! Votes about the next layout, whose messages are delivered in any order, or lost.

use super::*;
use crate::membership::{NoVote, Register};
use crate::operation::Failure;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

const EPOCH: u64 = 5;

/// Voters, and proposers whose messages are delivered in any order, or lost.
struct Vote {
    registers: Vec<Register>,
    machines: Vec<Relayout>,
    /// Calls under way: whose, to whom, and what.
    under_way: Vec<(usize, CallId, usize, LayoutRequest)>,
    chosen: Vec<Vec<u8>>,
    rng: ChaCha8Rng,
}

fn options(proposer: usize, voters: usize, needed: usize) -> RelayoutOptions {
    let voters = (0..voters).map(|at| (MemberIndex(at as u16), NodeId(at as u64))).collect();
    RelayoutOptions { epoch: EPOCH, by: NodeId(proposer as u64), voters, needed, chance: proposer as u64 }
}

impl Vote {
    fn new(seed: u64, proposers: usize, voters: usize, needed: usize) -> Vote {
        let machine = |at| Relayout::new(vec![at as u8], options(at, voters, needed));
        Vote {
            registers: vec![Register::default(); voters],
            machines: (0..proposers).map(machine).collect(),
            under_way: Vec::new(),
            chosen: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.rng.next_u32() as usize) % bound.max(1)
    }

    fn tell(&mut self, proposer: usize, event: Event) {
        let mut commands = Vec::new();
        if let Some(Relaid::Chosen { layout, is_own }) = self.machines[proposer].on(event, &mut commands) {
            assert_eq!(is_own, layout == vec![proposer as u8]);
            self.chosen.push(layout);
        }
        for command in commands {
            match command {
                Command::Call { call, to, request: Request::Layout(request) } => {
                    self.under_way.push((proposer, call, to.index(), request));
                }
                Command::Call { .. } => unreachable!("only layouts are talked about"),
                Command::Wake { .. } => {}
            }
        }
    }

    fn answer(&mut self, voter: usize, request: LayoutRequest) -> Answer {
        let by = NodeId(voter as u64);
        let register = &mut self.registers[voter];
        let voted = match request {
            LayoutRequest::Prepare { epoch, round } => {
                register.prepare(EPOCH - 1, epoch, round).map(|accepted| LayoutAnswer::Promised { by, accepted })
            }
            LayoutRequest::Accept { round, layout } => {
                register.accept(EPOCH - 1, EPOCH, round, layout).map(|()| LayoutAnswer::Accepted { by })
            }
            _ => unreachable!("a proposer asks nothing else"),
        };
        match voted {
            Ok(answer) => Answer::Layout(answer),
            Err(NoVote::Outvoted(round)) => Answer::Layout(LayoutAnswer::Outvoted { round }),
            Err(NoVote::OtherEpoch) => Answer::Refused(Refusal::StaleEpoch { epoch: EPOCH - 1 }),
        }
    }

    /// One thing happens: a message arrives, is lost on its way there or back, or a proposer is woken.
    fn step(&mut self) {
        if self.under_way.is_empty() || self.below(8) == 0 {
            let proposer = self.below(self.machines.len());
            return self.tell(proposer, Event::Woken);
        }
        let at = self.below(self.under_way.len());
        let (proposer, call, voter, request) = self.under_way.swap_remove(at);
        let fate = self.below(10);
        if fate == 0 {
            return self.tell(proposer, Event::Failed { call, failure: Failure::Unreachable });
        }
        let answer = self.answer(voter, request);
        let failed = Event::Failed { call, failure: Failure::Unknown };
        self.tell(proposer, if fate == 1 { failed } else { Event::Answered { call, answer } });
    }
}

#[test]
fn whoever_proposes_and_whatever_is_lost_one_layout_is_chosen() {
    let mut ended = 0;
    for seed in 0..2_000 {
        let voters = 1 + (seed % 5) as usize;
        let mut vote = Vote::new(seed, 1 + (seed % 3) as usize, voters, voters / 2 + 1);
        (0..vote.machines.len()).for_each(|proposer| vote.tell(proposer, Event::Start));
        for _ in 0..400 {
            vote.step();
        }
        ended += usize::from(!vote.chosen.is_empty());
        assert!(vote.chosen.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: {:?}", vote.chosen);
    }
    assert!(ended > 1_900, "{ended} of 2000 came to an end");
}

#[test]
fn with_votes_of_two_stores_under_one_name_two_would_be_chosen() {
    // The planted bug: voters that forget. It shows that the test above can fail.
    let broken = (0..500).any(|seed| {
        let mut vote = Vote::new(seed, 3, 3, 2);
        (0..3).for_each(|proposer| vote.tell(proposer, Event::Start));
        for _ in 0..400 {
            vote.step();
            if vote.below(10) == 0 {
                let voter = vote.below(3);
                vote.registers[voter] = Register::default();
            }
        }
        vote.chosen.windows(2).any(|pair| pair[0] != pair[1])
    });
    assert!(broken);
}

#[test]
fn a_vote_of_another_store_under_the_members_name_does_not_count() {
    let mut machine = Relayout::new(vec![7], options(0, 1, 1));
    let mut commands = Vec::new();
    machine.on(Event::Start, &mut commands);
    let promised = LayoutAnswer::Promised { by: NodeId(99), accepted: None };
    let heard = machine.on(Event::Answered { call: CallId(0), answer: Answer::Layout(promised) }, &mut commands);
    assert_eq!(heard, None);
    assert_eq!(machine.on(Event::Deadline, &mut commands), Some(Relaid::Unavailable { agreed: 0 }));
}

#[test]
fn a_voter_at_a_later_epoch_ends_it() {
    let mut machine = Relayout::new(vec![7], options(0, 3, 2));
    let mut commands = Vec::new();
    machine.on(Event::Start, &mut commands);
    let refused = Answer::Refused(Refusal::StaleEpoch { epoch: EPOCH });
    let ended = machine.on(Event::Answered { call: CallId(1), answer: refused }, &mut commands);
    assert_eq!(ended, Some(Relaid::Behind { by: MemberIndex(1) }));
    assert!(machine.is_done());
}
