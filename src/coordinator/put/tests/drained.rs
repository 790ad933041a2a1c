//! A coordinator that is drained: it passes writes on, and keeps nothing for others while one of them can.

use super::*;

/// Three owners, and a fourth member without weight that coordinates.
fn story() -> Story {
    let member = |node: u16| Member { weight: u16::from(node != 3), ..Member::new(format!("http://n{node}:1")) };
    let layout = Layout::provisional(ClusterId(1), 3, Mode::Sloppy, (0..4).map(member).collect()).unwrap();
    Story::within(Arc::new(Ring::new(layout)), |ring, _, me, _| *me = ring.member_by_name("http://n3:1").unwrap())
}

fn hinted(story: &Story) -> Vec<MemberIndex> {
    let is_hint = |request: &Request| matches!(request, Request::Hint { .. });
    story.calls.iter().filter(|(_, request)| is_hint(request)).map(|(to, _)| *to).collect()
}

#[test]
fn another_owner_keeps_the_hint_rather_than_the_drained_coordinator() {
    let mut story = story();
    assert!(stand_ins(&story.ring).is_empty());
    let owners = owners(&story.ring);
    story.answer(0, written(1, 9)).answer(1, merged(None)).fail(2, Failure::Unreachable);
    assert_eq!(hinted(&story), owners[..1]);
    story.answer(3, merged(None));
    assert!(story.put.is_done());
}

#[test]
fn what_nobody_else_keeps_the_drained_coordinator_does_not_let_go() {
    let mut story = story();
    let (owners, me) = (owners(&story.ring), story.ring.member_by_name("http://n3:1").unwrap());
    story.answer(0, written(1, 9)).answer(1, merged(None)).fail(2, Failure::Unreachable);
    story.fail(3, Failure::Unreachable).fail(4, Failure::Unreachable);
    assert_eq!(hinted(&story), [owners[0], owners[1], me]);
}
