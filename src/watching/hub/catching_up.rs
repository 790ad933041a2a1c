//! A hub that tells one watcher what it missed.

use super::*;

impl Hub {
    /// One that tells a watcher who was at `from` what the `living` one has told since.
    pub fn catching_up(living: &Hub, from: &Positions, now_ms: u64) -> Hub {
        let mut hub = Hub::with(living.of, Vec::new(), living.loss_ms, from.at_ms(), true);
        (hub.prefixes, hub.values, hub.now_ms) = (living.prefixes.clone(), living.values, now_ms);
        let members = || living.sources.iter().filter(|source| source.told.is_some());
        let told = living.gone.iter().filter(|(member, told)| from.of_member(member) == Some(*told));
        let known = living.sources.iter().map(|source| &source.member).chain(told.map(|(member, _)| member));
        if from.has_others_than(known.map(|member| &**member)) {
            let (id, tidings) = (from.to_word(), Tidings::Gap { member: None, why: Why::Left });
            hub.told.push(Telling { id, tidings, place: None });
        }
        for (at, there) in members().enumerate() {
            let was = from.of_member(&there.member);
            let mut source = Source::new(&there.member, Standing::Complete);
            source.told = was;
            source.end = match there.told {
                Some(Position::At(place)) => Some(place),
                _ => None,
            };
            let gap = match (was, source.end) {
                (_, None) => Some(Why::Silent),
                (Some(Position::Lost), Some(_)) => Some(Why::Back),
                (Some(Position::At(was)), Some(end))
                    if was.incarnation == end.incarnation && was.sequence >= end.sequence =>
                {
                    None
                }
                (Some(Position::At(was)), Some(_)) => {
                    source.standing = Standing::Beginning(Some(was));
                    None
                }
                (None, Some(_)) if there.is_back => Some(Why::Back),
                (None, Some(_)) => {
                    // It became a member since: from its beginning.
                    source.standing = Standing::Beginning(Some(FeedPlace::default()));
                    None
                }
            };
            let position = there.told.unwrap_or(Position::Lost);
            hub.sources.push(source);
            gap.into_iter().for_each(|why| hub.announce(at, position, why));
        }
        hub.release();
        hub
    }
}
