//! `slow_open` (extension): a new connection is dialled `delay` ms late. Nothing passes before; live
//! connections are left alone. Removing it dials at once.

use super::{Kind, Role, SMALL_ROOM, noop};

pub(super) const KIND: Kind = Kind {
    name: "slow_open",
    attributes: &["delay"],
    stage: noop::KIND.stage,
    room: SMALL_ROOM,
    role: Role::Opening,
    extras: &[],
};
