//! Cuts of the network between nodes: which pairs do not hear each other. The nodes themselves play deaf, told so by
//! `PUT /faults`, each by the whole list of those it is cut from.

use super::cluster::{Cluster, Seen, of_node};
use super::node::State;
use super::trouble::Trouble;
use kringle::remote::Ask;
use serde_json::json;
use std::collections::BTreeSet;

impl Cluster {
    /// Cuts each node of one side from each of the other, in both directions. Clients reach all of them as before.
    pub(super) async fn cut(&self, one: &[Seen], other: &[Seen]) -> Result<(), Trouble> {
        let pairs = one.iter().flat_map(|one| other.iter().map(|other| (one.number, other.number)));
        let pairs = pairs.filter(|(one, other)| one != other).map(|(one, other)| (one.min(other), one.max(other)));
        self.cuts.borrow_mut().extend(pairs);
        let told: Vec<u32> = one.iter().chain(other).map(|node| node.number).collect();
        self.tell_cuts(&told).await
    }

    /// Ends all cuts. Every node is told, those that no cut is known of as well; until all that run have heard it, cuts count
    /// as there, so that it can be asked for again.
    pub(super) async fn heal(&self) -> Result<(), Trouble> {
        let cuts = self.cuts.borrow().clone();
        let everybody: Vec<u32> = self.seen().iter().map(|node| node.number).collect();
        self.tell(&everybody, &BTreeSet::new()).await?;
        // What was cut meanwhile stays.
        self.cuts.borrow_mut().retain(|pair| !cuts.contains(pair));
        Ok(())
    }

    /// Tells these nodes, those of them that run, whom they are cut from.
    pub(super) async fn tell_cuts(&self, numbers: &[u32]) -> Result<(), Trouble> {
        let cuts = self.cuts.borrow().clone();
        self.tell(numbers, &cuts).await
    }

    /// Tells these nodes of these cuts. One that cannot be told keeps no other from it; the first failure is the error.
    async fn tell(&self, numbers: &[u32], cuts: &BTreeSet<(u32, u32)>) -> Result<(), Trouble> {
        let all = self.seen();
        let mut told = Ok(());
        for node in all.iter().filter(|node| numbers.contains(&node.number) && node.state == State::Running) {
            let cut: Vec<&str> = all
                .iter()
                .filter(|other| {
                    let pair = (node.number.min(other.number), node.number.max(other.number));
                    cuts.contains(&pair)
                })
                .map(|other| other.url.url())
                .collect();
            let heard = of_node(node, Ask::put("/faults").json(&json!({ "cut": cut }))).await;
            told = told.and(heard.map(drop));
        }
        Ok(told?)
    }

    /// Whether a node is cut from any other.
    pub(super) fn is_cut(&self, number: u32) -> bool {
        self.cuts.borrow().iter().any(|(one, other)| *one == number || *other == number)
    }

    /// The pairs there are, for people; empty where there are none.
    pub(super) fn cuts_told(&self) -> String {
        let cuts = self.cuts.borrow();
        let pairs: Vec<String> = cuts.iter().map(|(one, other)| format!("{one} from {other}")).collect();
        pairs.join(", ")
    }
}
