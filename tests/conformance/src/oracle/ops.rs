//! Operations as data. Numbers pick from what there is when the operation runs, so that any
//! subsequence of operations makes sense too: that is what makes failing sequences shrink.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

/// A number that picks one of several, modulo their count.
pub(super) type Pick = u8;

/// A file of a small world of names, so that operations meet.
#[derive(Debug, Clone, Copy)]
pub(super) struct File {
    pub(super) path: Pick,
    pub(super) dv: Pick,
    pub(super) size: u16,
}

/// What is removed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Remove {
    /// One of the active files.
    Active(Pick),
    /// Any file, active or not.
    Any(File),
}

/// The actions of a commit.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    pub(super) adds: Vec<File>,
    pub(super) removes: Vec<(Remove, Option<i16>)>,
    pub(super) metadata: Option<Pick>,
    pub(super) protocol: Option<Pick>,
    pub(super) txn: Option<(Pick, i8)>,
    pub(super) domain: Option<(Pick, Option<Pick>)>,
}

/// The head that a commit expects.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    Head,
    Behind(Pick),
    Ahead(Pick),
    Append(Pick),
}

/// Where a part of a batch goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Create { name: Pick, off: bool },
    Existing { table: Pick, rule: Rule },
}

/// What a write to the registry expects.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hope {
    Any,
    /// What is there.
    Right,
    Absent,
    Older,
}

/// A record that is written, or deleted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) key: Pick,
    pub(super) expected: Hope,
    pub(super) body: Option<Pick>,
}

#[derive(Debug, Clone)]
pub(super) enum Op {
    /// The clock moves, maybe back.
    Tick(i16),
    Commit {
        old_token: Option<Pick>,
        parts: Vec<(Target, Edit)>,
    },
    Drop(Pick),
    Undrop {
        table: Pick,
        name: Option<Pick>,
    },
    Resolve(Pick),
    /// What is older than a time before or after now goes.
    ExpireTokens {
        before: i16,
        limit: Pick,
        dry_run: bool,
    },

    ImportBegin {
        name: Pick,
        base: Option<Pick>,
        elsewhere: bool,
    },
    ImportBase {
        table: Pick,
        files: Vec<File>,
        tombstones: Vec<File>,
        astray: bool,
        tail: bool,
    },
    ImportCommits {
        table: Pick,
        skip: i8,
        steps: Vec<i8>,
        edit: Edit,
    },
    ImportFinish(Pick),
    ImportAbort(Pick),

    Snapshot {
        table: Pick,
        behind: i8,
        by_name: bool,
    },
    SnapshotAt {
        table: Pick,
        behind: Pick,
        offset: i8,
    },
    Files {
        table: Pick,
        behind: Pick,
        limit: Pick,
    },
    Tombstones {
        table: Pick,
        behind: Pick,
        limit: Pick,
        deleted_after: i16,
    },
    Commits {
        table: Pick,
        from: Option<Pick>,
        to: Option<Pick>,
        time: Option<i16>,
        limit: Pick,
    },
    Bodies {
        table: Pick,
        from: Pick,
        count: Pick,
        limit: Pick,
    },
    Tables {
        state: Pick,
        namespace: Option<Pick>,
        limit: Pick,
    },

    Claim {
        owner: Pick,
        only: Option<Pick>,
        tables: Pick,
        versions: Pick,
        lease_ms: i16,
    },
    Complete {
        lease: Pick,
        count: Pick,
        astray: bool,
    },
    Fail {
        lease: Pick,
        offset: Pick,
        retry_in: i16,
        diverged: bool,
    },
    Renew {
        lease: Pick,
        lease_ms: i16,
    },
    Release(Pick),
    Rows {
        table: Option<Pick>,
        state: Pick,
        limit: Pick,
    },
    Expire {
        before: i16,
        limit: Pick,
        dry_run: bool,
    },
    Retry(Pick),
    SetMode {
        table: Pick,
        mode: u8,
    },

    RegistryWrite(Vec<Written>),
    RegistryRead {
        key: Pick,
        limit: Pick,
    },
}

fn file() -> impl Strategy<Value = File> {
    (0..6_u8, 0..3_u8, any::<u16>()).prop_map(|(path, dv, size)| File {
        path,
        // Most files have no deletion vector.
        dv: dv.saturating_sub(1),
        size,
    })
}

fn remove() -> impl Strategy<Value = (Remove, Option<i16>)> {
    let which = prop_oneof![
        9 => any::<Pick>().prop_map(Remove::Active),
        1 => file().prop_map(Remove::Any),
    ];
    (which, of(any::<i16>()))
}

fn edit() -> impl Strategy<Value = Edit> {
    let rarely = || proptest::option::weighted(0.15, any::<Pick>());
    (
        vec(file(), 0..4),
        vec(remove(), 0..3),
        rarely(),
        rarely(),
        proptest::option::weighted(0.2, (0..3_u8, any::<i8>())),
        proptest::option::weighted(0.2, (0..3_u8, of(any::<Pick>()))),
    )
        .prop_map(|(adds, removes, metadata, protocol, txn, domain)| Edit {
            adds,
            removes,
            metadata,
            protocol,
            txn,
            domain,
        })
}

fn target() -> impl Strategy<Value = Target> {
    let rule = prop_oneof![
        9 => Just(Rule::Head),
        1 => (1..4_u8).prop_map(Rule::Behind),
        1 => (1..3_u8).prop_map(Rule::Ahead),
        4 => (0..4_u8).prop_map(Rule::Append),
    ];
    prop_oneof![
        1 => (any::<Pick>(), any::<bool>(), any::<bool>())
            .prop_map(|(name, a, b)| Target::Create { name, off: a && b }),
        7 => (any::<Pick>(), rule).prop_map(|(table, rule)| Target::Existing { table, rule }),
    ]
}

fn written() -> impl Strategy<Value = Written> {
    let expected = prop_oneof![
        4 => Just(Hope::Right),
        3 => Just(Hope::Any),
        1 => Just(Hope::Absent),
        1 => Just(Hope::Older),
    ];
    let body = proptest::option::weighted(0.7, any::<Pick>());
    (any::<Pick>(), expected, body).prop_map(|(key, expected, body)| Written {
        key,
        expected,
        body,
    })
}

fn expiry() -> impl Strategy<Value = (i16, Pick, bool)> {
    (-6_000..100_i16, 0..6_u8, proptest::bool::weighted(0.2))
}

/// One operation: mostly commits, and everything else often enough.
pub(super) fn op() -> impl Strategy<Value = Op> {
    let pick = any::<Pick>;
    let writes = prop_oneof![
        2 => (-50..3_000_i16).prop_map(Op::Tick),
        14 => (
            proptest::option::weighted(0.06, pick()),
            vec((target(), edit()), 1..4),
        ).prop_map(|(old_token, parts)| Op::Commit { old_token, parts }),
        1 => pick().prop_map(Op::Drop),
        1 => (pick(), of(pick())).prop_map(|(table, name)| Op::Undrop { table, name }),
        1 => pick().prop_map(Op::Resolve),
        1 => expiry().prop_map(|(before, limit, dry_run)| Op::ExpireTokens { before, limit, dry_run }),
    ];
    let imports = prop_oneof![
        2 => (pick(), of(1..4_u8), proptest::bool::weighted(0.2))
            .prop_map(|(name, base, elsewhere)| Op::ImportBegin { name, base, elsewhere }),
        3 => (
            pick(),
            vec(file(), 0..5),
            vec(file(), 0..3),
            proptest::bool::weighted(0.1),
            any::<bool>(),
        )
            .prop_map(|(table, files, tombstones, astray, tail)| Op::ImportBase {
                table,
                files,
                tombstones,
                astray,
                tail,
            }),
        4 => (
            pick(),
            prop_oneof![8 => Just(0_i8), 1 => -3..3_i8],
            vec(prop_oneof![8 => 1..100_i8, 1 => -2..2_i8], 1..4),
            edit(),
        )
            .prop_map(|(table, skip, steps, edit)| Op::ImportCommits { table, skip, steps, edit }),
        2 => pick().prop_map(Op::ImportFinish),
        1 => pick().prop_map(Op::ImportAbort),
    ];
    let reads =
        prop_oneof![
            (pick(), -2..6_i8, any::<bool>()).prop_map(|(table, behind, by_name)| Op::Snapshot {
                table,
                behind,
                by_name
            }),
            (pick(), 0..5_u8, -2..2_i8).prop_map(|(table, behind, offset)| Op::SnapshotAt {
                table,
                behind,
                offset
            }),
            (pick(), 0..5_u8, 1..8_u8).prop_map(|(table, behind, limit)| Op::Files {
                table,
                behind,
                limit
            }),
            (pick(), 0..5_u8, 1..8_u8, any::<i16>()).prop_map(
                |(table, behind, limit, deleted_after)| {
                    Op::Tombstones { table, behind, limit, deleted_after }
                }
            ),
            (pick(), of(0..9_u8), of(0..9_u8), of(any::<i16>()), 1..6_u8).prop_map(
                |(table, from, to, time, limit)| Op::Commits { table, from, to, time, limit }
            ),
            (pick(), 0..6_u8, 0..6_u8, 1..5_u8)
                .prop_map(|(table, from, count, limit)| Op::Bodies { table, from, count, limit }),
            (0..4_u8, of(0..2_u8), 1..5_u8).prop_map(|(state, namespace, limit)| Op::Tables {
                state,
                namespace,
                limit
            }),
        ];
    let outbox = prop_oneof![
        5 => (0..3_u8, proptest::option::weighted(0.2, pick()), 1..4_u8, 1..5_u8, 0..5_000_i16)
            .prop_map(|(owner, only, tables, versions, lease_ms)| Op::Claim {
                owner,
                only,
                tables,
                versions,
                lease_ms,
            }),
        5 => (pick(), 0..4_u8, proptest::bool::weighted(0.1))
            .prop_map(|(lease, count, astray)| Op::Complete { lease, count, astray }),
        2 => (pick(), 0..3_u8, -10..3_000_i16, proptest::bool::weighted(0.2)).prop_map(
            |(lease, offset, retry_in, diverged)| Op::Fail { lease, offset, retry_in, diverged }
        ),
        1 => (pick(), 0..5_000_i16).prop_map(|(lease, lease_ms)| Op::Renew { lease, lease_ms }),
        2 => pick().prop_map(Op::Release),
        1 => (of(pick()), 0..5_u8, 1..6_u8)
            .prop_map(|(table, state, limit)| Op::Rows { table, state, limit }),
        1 => expiry().prop_map(|(before, limit, dry_run)| Op::Expire { before, limit, dry_run }),
        1 => pick().prop_map(Op::Retry),
        2 => (pick(), any::<u8>()).prop_map(|(table, mode)| Op::SetMode { table, mode }),
    ];
    let registry = prop_oneof![
        3 => vec(written(), 0..4).prop_map(Op::RegistryWrite),
        1 => (pick(), 1..5_u8).prop_map(|(key, limit)| Op::RegistryRead { key, limit }),
    ];
    prop_oneof![10 => writes, 3 => imports, 4 => reads, 4 => outbox, 1 => registry]
}
