//! The registry: what is kept, how it is listed, and what writers at the same time make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deltalakedb_catalog_core::audit::{Actor, AuditEntry, AuditFilter, AuditOrder};
use deltalakedb_catalog_core::backend::{CatalogBackend, RegistryBackend};
use deltalakedb_catalog_core::error::{CatalogError, PlainResult, Result, WriteState};
use deltalakedb_catalog_core::ids::{CommitToken, TimestampMs};
use deltalakedb_catalog_core::registry::{
    Expected, Record, RecordKey, RecordWrite, RegistryOutcome,
};
use deltalakedb_catalog_engine::fault::{Fault, FaultyBackend, Verb};

use super::cases;
use crate::env::{CaseResult, Env, fail, retrying, together};

fn key(kind: &str, name: &str) -> CaseResult<RecordKey> {
    Ok(RecordKey::new(kind, name)?)
}

fn put(kind: &str, name: &str, body: &str) -> CaseResult<RecordWrite> {
    Ok(RecordWrite { key: key(kind, name)?, expected: Expected::Any, body: Some(body.to_owned()) })
}

fn delete(kind: &str, name: &str) -> CaseResult<RecordWrite> {
    Ok(RecordWrite { key: key(kind, name)?, expected: Expected::Any, body: None })
}

fn expecting(expected: Expected, write: RecordWrite) -> RecordWrite {
    RecordWrite { expected, ..write }
}

fn entry(action: &str) -> AuditEntry {
    AuditEntry {
        at: TimestampMs(5),
        action: action.to_owned(),
        table_id: None,
        table_name: None,
        by: Actor { user: Some("ann".to_owned()), ..Actor::default() },
        detail: Some("{}".to_owned()),
        token: None,
    }
}

/// Whether it keeps a registry. If not, it must say so to each call.
async fn keeps_registry(env: &Env) -> CaseResult<bool> {
    let Err(revision) = env.db().registry_revision().await.plain() else { return Ok(true) };
    let key = key("share", "a")?;
    let writes = [put("share", "a", "{}")?];
    let answers = [
        Err(revision),
        env.db().registry_get(&key).await.plain().map(drop),
        env.db().registry_list("share", None, 1).await.plain().map(drop),
        env.db().registry_write(&writes, env.now(), None).await.plain().map(drop),
        env.db().registry_all(None, 1).await.plain().map(drop),
        env.db().registry_load(&[], 1).await.plain().map(drop),
    ];
    if answers.iter().all(|answer| matches!(answer, Err(CatalogError::Unsupported(_)))) {
        return Ok(false);
    }
    fail(format_args!("no registry is kept, and not said so: {answers:?}"))
}

/// Writes, which must take effect: the new revision.
async fn written(db: &dyn CatalogBackend, writes: &[RecordWrite], at: i64) -> CaseResult<i64> {
    match retrying(|| db.registry_write(writes, TimestampMs(at), None)).await? {
        RegistryOutcome::Written(revision) => Ok(revision),
        conflict @ RegistryOutcome::Conflict { .. } => {
            fail(format_args!("{writes:?}: {conflict:?}"))
        }
    }
}

/// All records of a kind, in pages.
async fn listed(db: &dyn CatalogBackend, kind: &str, limit: usize) -> CaseResult<Vec<Record>> {
    let (mut all, mut after): (Vec<Record>, Option<String>) = (Vec::new(), None);
    loop {
        let page = retrying(|| db.registry_list(kind, after.as_deref(), limit)).await?;
        assert!(page.items.len() <= limit, "{} items, limit {limit}", page.items.len());
        assert!(page.next.is_none() || !page.items.is_empty(), "an empty page is the last one");
        if let (Some(next), Some(last)) = (&page.next, page.items.last()) {
            assert_eq!(next, last.key.name(), "the cursor is the name of the last item");
        }
        all.extend(page.items);
        match page.next {
            None => return Ok(all),
            next => after = next,
        }
    }
}

/// All records, in pages.
async fn every(db: &dyn CatalogBackend, limit: usize) -> CaseResult<Vec<Record>> {
    let (mut all, mut after): (Vec<Record>, Option<RecordKey>) = (Vec::new(), None);
    loop {
        let page = retrying(|| db.registry_all(after.as_ref(), limit)).await?;
        assert!(page.items.len() <= limit, "{} items, limit {limit}", page.items.len());
        assert!(page.next.is_none() || !page.items.is_empty(), "an empty page is the last one");
        if let (Some(next), Some(last)) = (&page.next, page.items.last()) {
            assert_eq!(next, &last.key, "the cursor is the key of the last item");
        }
        all.extend(page.items);
        match page.next {
            None => return Ok(all),
            next => after = next,
        }
    }
}

/// The revision, and all records of these kinds.
async fn dump(env: &Env, kinds: &[&str]) -> CaseResult<(i64, Vec<Record>)> {
    let mut all = Vec::new();
    for kind in kinds {
        all.extend(listed(env.db(), kind, 100).await?);
    }
    Ok((env.db().registry_revision().await?, all))
}

/// Actions in the audit, where there is one.
async fn actions(env: &Env) -> CaseResult<Option<Vec<String>>> {
    if !env.db().info().await?.keeps_audit {
        return Ok(None);
    }
    let filter = AuditFilter::default();
    let page = env.db().audit_list(&filter, AuditOrder::OldestFirst, None, 1_000).await?;
    Ok(Some(page.items.into_iter().map(|row| row.entry.action).collect()))
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

cases! {
    /// registry_revision 2: one that keeps no registry says so to each call.
    async fn it_says_whether_it_keeps_a_registry(env: &Env) -> CaseResult {
        keeps_registry(env).await.map(drop)
    }

    /// registry_get 1: every body comes back exactly, with its revision and time.
    async fn bodies_come_back_exactly(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        let largest = format!("{{\"a\": \"{}\"}}", "ü".repeat((RecordWrite::MAX_BODY_BYTES - 10) / 2));
        assert!(largest.len() > RecordWrite::MAX_BODY_BYTES - 4, "{}", largest.len());
        let bodies = [
            "{}",
            " { \"b\" : 1,\n\t\"a\" : [1, 2.50, null, true] , \"a\" : 2 }\r\n",
            "{\"text\": \"o'b \\\"x\\\" \\\\ `y` %_ \\u0000 😀 --; DROP TABLE\"}",
            "{\"number\": 123456789012345678, \"float\": 1e300}",
            &largest,
        ];
        for (n, body) in (1..).zip(bodies) {
            let name = format!("body {n}");
            let key = key("api-key_1", &name)?;
            assert_eq!(env.db().registry_get(&key).await?, None);
            let revision = written(env.db(), &[put("api-key_1", &name, body)?], -n).await?;
            let want = Record {
                key: key.clone(),
                revision,
                body: body.to_owned(),
                changed_at: TimestampMs(-n),
            };
            assert_eq!(env.db().registry_get(&key).await?.as_ref(), Some(&want));
            // The same again is another revision.
            let again = written(env.db(), &[put("api-key_1", &name, body)?], n).await?;
            let want = Record { revision: again, changed_at: TimestampMs(n), ..want };
            assert_eq!(env.db().registry_get(&key).await?, Some(want));
            assert_eq!(again, revision + 1);
        }
        Ok(())
    }

    /// registry_get 2: keys are compared byte for byte, kinds too.
    async fn keys_are_compared_byte_for_byte(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        let longest = "😀".repeat(RecordKey::MAX_NAME_CHARS);
        let names = [
            "a", "A", "a ", " a", "ä", "a\u{308}", "ss", "ß", "a%", "a_", "a'b", "\u{a0}", "ﬁ", "fi",
            "\u{ffff}", &longest,
        ];
        let kind = "k".repeat(RecordKey::MAX_KIND_CHARS);
        for kind in ["share", "share_", "share-", kind.as_str()] {
            for name in names {
                let body = serde_json::json!({ "kind": kind, "name": name }).to_string();
                let new = expecting(Expected::Absent, put(kind, name, &body)?);
                written(env.db(), &[new], 1).await?;
            }
        }
        for kind in ["share", "share_", "share-", kind.as_str()] {
            for name in names {
                let found = env.db().registry_get(&key(kind, name)?).await?.map(|r| r.body);
                let body = serde_json::json!({ "kind": kind, "name": name }).to_string();
                assert_eq!(found, Some(body), "{kind} {name}");
            }
        }
        for (kind, name) in [("share", "b"), ("share", "a  "), ("shares", "a"), ("s", "A")] {
            assert_eq!(env.db().registry_get(&key(kind, name)?).await?, None, "{kind} {name:?}");
        }
        Ok(())
    }

    /// registry_list 1: records of one kind in the order of their names' bytes, in pages of any size, each once.
    async fn records_are_listed_by_the_bytes_of_their_names(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        assert_eq!(listed(env.db(), "share", 10).await?, Vec::new());
        let names = ["z", "B", "a ", "a", "ab", "é", "😀", "\u{ffff}", "a\u{308}", "Z", "~"];
        let writes: CaseResult<Vec<RecordWrite>> =
            names.iter().map(|name| put("share", name, "{}")).collect();
        written(env.db(), &writes?, 1).await?;
        let others = [put("shar", "m", "{}")?, put("share-", "m", "{}")?, put("sharf", "m", "{}")?];
        written(env.db(), &others, 1).await?;
        let mut sorted = names;
        sorted.sort_unstable();
        for limit in [1, 2, 3, 10, 11, 12, 1_000] {
            let found = listed(env.db(), "share", limit).await?;
            let found: Vec<&str> = found.iter().map(|record| record.key.name()).collect();
            assert_eq!(found, sorted, "{limit}");
        }
        for kind in ["shar", "share-", "sharf"] {
            assert_eq!(listed(env.db(), kind, 1).await?.len(), 1);
        }
        Ok(())
    }

    /// registry_list 2: a page begins after any name; what is no kind or name is refused.
    async fn a_page_begins_after_any_name(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        let longest = "\u{10ffff}".repeat(RecordKey::MAX_NAME_CHARS);
        written(env.db(), &[put("share", "b", "{}")?, put("share", "d", "{}")?], 1).await?;
        for (after, want) in [
            ("a", vec!["b", "d"]),
            ("B", vec!["b", "d"]),
            ("b", vec!["d"]),
            ("b ", vec!["d"]),
            ("c", vec!["d"]),
            ("d", vec![]),
            (longest.as_str(), vec![]),
        ] {
            let page = env.db().registry_list("share", Some(after), 10).await?;
            let found: Vec<&str> = page.items.iter().map(|record| record.key.name()).collect();
            assert_eq!((found, page.next), (want, None), "{after}");
        }
        let long = "x".repeat(RecordKey::MAX_NAME_CHARS + 1);
        for (kind, after) in [
            ("", None),
            ("Share", None),
            ("o'b", None),
            ("ä", None),
            ("share\0", None),
            ("share", Some("")),
            ("share", Some("a\0")),
            ("share", Some("\n")),
            ("share", Some(long.as_str())),
        ] {
            match env.db().registry_list(kind, after, 1).await.plain() {
                Err(CatalogError::InvalidInput(_)) => {}
                other => return fail(format_args!("{kind:?} {after:?}: {other:?}")),
            }
        }
        Ok(())
    }

    /// registry_all 1: all records in the order of their keys, in pages of any size, each once.
    async fn all_records_are_listed_by_their_keys(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        assert_eq!(every(env.db(), 10).await?, Vec::new());
        let names = ["b", "a ", "a", "B", "😀", "\u{ffff}"];
        let kinds = ["s", "share", "share-", "share_", "9", "z"];
        let mut want = Vec::new();
        for name in names {
            let writes: CaseResult<Vec<RecordWrite>> =
                kinds.iter().map(|kind| put(kind, name, "{}")).collect();
            let writes = writes?;
            written(env.db(), &writes, 1).await?;
            want.extend(writes.into_iter().map(|write| write.key));
        }
        want.sort();
        for limit in [1, 2, 5, 35, 36, 37, 1_000] {
            let found: Vec<RecordKey> =
                every(env.db(), limit).await?.into_iter().map(|record| record.key).collect();
            assert_eq!(found, want, "{limit}");
        }
        // After a key that no record has.
        let after = key("share", "a  ")?;
        let page = env.db().registry_all(Some(&after), 1_000).await?;
        let found: Vec<RecordKey> = page.items.into_iter().map(|record| record.key).collect();
        let rest: Vec<RecordKey> = want.into_iter().filter(|key| *key > after).collect();
        assert_eq!(found, rest);
        Ok(())
    }

    /// registry_load 1: all records are there as they were, with their revisions and times, and the registry's.
    async fn a_registry_is_filled_as_another_one_was(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        let record = |n: i64| -> CaseResult<Record> {
            Ok(Record {
                key: key(["share", "role", "api-key"][usize::try_from(n % 3).unwrap_or(0)], &format!("ü {n}"))?,
                revision: 1 + n,
                body: format!("{{\"n\" : {n}, \"text\": \"o'b \\u0000 \\\\ 😀\"}}"),
                changed_at: TimestampMs(1_000 - n),
            })
        };
        let records: CaseResult<Vec<Record>> = (0..1_234).map(record).collect();
        let mut records = records?;
        assert!(env.db().registry_load(&records, 7_777).await?);
        records.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(every(env.db(), 500).await?, records);
        assert_eq!(env.db().registry_revision().await?, 7_777);
        // It goes on from there.
        let change = expecting(Expected::Revision(1), put("share", "ü 0", "{}")?);
        assert_eq!(written(env.db(), &[change], 1).await?, 7_778);
        assert!(actions(env).await?.is_none_or(|actions| actions.is_empty()));
        Ok(())
    }

    /// registry_load 2: what was written to is not filled; of several that fill it at the same time one does.
    async fn a_registry_is_filled_once(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        let calls = (0..6).map(|n: i64| {
            let db = env.shared();
            async move {
                let names = [format!("{n}-a"), format!("{n}-b")];
                let mut records = Vec::new();
                for name in names {
                    records.push(Record {
                        key: RecordKey::new("share", name)?,
                        revision: 1,
                        body: "{}".to_owned(),
                        changed_at: TimestampMs(n),
                    });
                }
                let filled = retrying(|| db.registry_load(&records, 10 + n)).await?;
                Result::<Option<(i64, Vec<Record>)>>::Ok(filled.then_some((10 + n, records)))
            }
        });
        let mut filled = Vec::new();
        for answer in together(calls).await? {
            filled.extend(answer?);
        }
        let there = (env.db().registry_revision().await?, every(env.db(), 10).await?);
        assert_eq!(filled, [there]);
        // One that is empty again was written to.
        for record in every(env.db(), 10).await? {
            written(env.db(), &[delete("share", record.key.name())?], 1).await?;
        }
        let before = env.db().registry_revision().await?;
        assert!(!env.db().registry_load(&[], 1).await?);
        assert_eq!(env.db().registry_revision().await?, before);
        Ok(())
    }

    /// registry_load 3: records that cannot be of one registry are refused, and nothing is written.
    async fn records_that_do_not_fit_are_refused(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        let good = Record {
            key: key("share", "a")?,
            revision: 2,
            body: "{}".to_owned(),
            changed_at: TimestampMs(1),
        };
        let bad = |revision: i64, body: &str| -> CaseResult<Record> {
            Ok(Record { key: key("share", "b")?, revision, body: body.to_owned(), ..good.clone() })
        };
        for (records, revision) in [
            (vec![good.clone(), good.clone()], 2),
            (vec![good.clone(), bad(3, "{}")?], 2),
            (vec![good.clone(), bad(0, "{}")?], 2),
            (vec![good.clone(), bad(1, "[]")?], 2),
            (vec![], -1),
        ] {
            match env.db().registry_load(&records, revision).await.plain() {
                Err(CatalogError::InvalidInput(_)) => {}
                other => return fail(format_args!("{records:?} {revision}: {other:?}")),
            }
        }
        assert_eq!((env.db().registry_revision().await?, every(env.db(), 10).await?), (0, Vec::new()));
        assert!(env.db().registry_load(&[good], 2).await?);
        Ok(())
    }

    /// registry_write 1, 5, registry_revision 1: all writes of a call have its revision; it grows by one with each call, with
    /// one that deletes too, whether there was anything or not.
    async fn each_call_has_one_revision(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        assert_eq!(env.db().registry_revision().await?, 0);
        let first = [put("share", "a", "{}")?, put("role", "a", "{}")?, put("share", "b", "{}")?];
        assert_eq!(written(env.db(), &first, 10).await?, 1);
        let second =
            [put("share", "c", "{}")?, delete("share", "a")?, put("share", "b", "{\"x\":1}")?];
        assert_eq!(written(env.db(), &second, 20).await?, 2);
        let (revision, all) = dump(env, &["role", "share"]).await?;
        assert_eq!(revision, 2);
        let found: Vec<(&str, &str, i64, i64)> = all
            .iter()
            .map(|r| (r.key.kind(), r.key.name(), r.revision, r.changed_at.0))
            .collect();
        assert_eq!(found, [("role", "a", 1, 10), ("share", "b", 2, 20), ("share", "c", 2, 20)]);
        // There is none.
        assert_eq!(written(env.db(), &[delete("share", "a")?], 30).await?, 3);
        assert_eq!(written(env.db(), &[delete("share", "never")?, delete("role", "a")?], 40).await?, 4);
        let absent = expecting(Expected::Revision(1), delete("share", "a")?);
        let outcome = env.db().registry_write(&[absent], TimestampMs(50), None).await?;
        assert_eq!(outcome, RegistryOutcome::Conflict { key: key("share", "a")?, current: None });
        // A name that is used again has no revision that it had before.
        let again = expecting(Expected::Absent, put("share", "a", "{}")?);
        assert_eq!(written(env.db(), &[again], 60).await?, 5);
        let (revision, all) = dump(env, &["role", "share"]).await?;
        let found: Vec<(&str, i64)> = all.iter().map(|r| (r.key.name(), r.revision)).collect();
        assert_eq!((revision, found), (5, vec![("a", 5), ("b", 2), ("c", 2)]));
        Ok(())
    }

    /// registry_write 1: a call of the most writes with the longest bodies takes effect as a whole.
    async fn the_largest_call_takes_effect(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        let body = format!("{{\"a\":\"{}\"}}", "x".repeat(RecordWrite::MAX_BODY_BYTES - 8));
        let name = |n: usize| format!("{}{n:03}", "😀".repeat(RecordKey::MAX_NAME_CHARS - 3));
        let writes: CaseResult<Vec<RecordWrite>> =
            (0..RecordWrite::MOST).map(|n| put("recipient", &name(n), &body)).collect();
        let mut writes = writes?;
        assert_eq!(written(env.db(), &writes, 1).await?, 1);
        for (n, write) in writes.iter_mut().enumerate() {
            write.expected = Expected::Revision(1);
            if n % 2 == 0 {
                write.body = None;
            }
        }
        assert_eq!(written(env.db(), &writes, 2).await?, 2);
        let found = listed(env.db(), "recipient", 7).await?;
        assert!(found.iter().all(|r| r.revision == 2 && r.body == body));
        assert_eq!(found.len(), RecordWrite::MOST / 2);
        Ok(())
    }

    /// registry_write 2: the first expectation that does not hold is named, and nothing is written, no row of the audit
    /// either.
    async fn a_conflict_writes_nothing(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        written(env.db(), &[put("share", "a", "{}")?, put("share", "b", "{}")?], 1).await?;
        written(env.db(), &[put("share", "b", "{}")?], 2).await?;
        let before = dump(env, &["share"]).await?;
        let conflict = |name: &str, current: Option<i64>| -> CaseResult<RegistryOutcome> {
            Ok(RegistryOutcome::Conflict { key: key("share", name)?, current })
        };
        let write = |expected: Expected, name: &str| -> CaseResult<RecordWrite> {
            Ok(expecting(expected, put("share", name, "{\"new\":1}")?))
        };
        let gone = |expected: Expected, name: &str| -> CaseResult<RecordWrite> {
            Ok(expecting(expected, delete("share", name)?))
        };
        for (writes, want) in [
            (vec![write(Expected::Absent, "a")?], conflict("a", Some(1))?),
            (vec![write(Expected::Revision(1), "b")?], conflict("b", Some(2))?),
            (vec![write(Expected::Revision(3), "b")?], conflict("b", Some(2))?),
            (vec![write(Expected::Revision(0), "c")?], conflict("c", None)?),
            (vec![gone(Expected::Revision(2), "a")?], conflict("a", Some(1))?),
            (vec![gone(Expected::Revision(2), "c")?], conflict("c", None)?),
            (
                vec![
                    write(Expected::Any, "z")?,
                    gone(Expected::Revision(1), "a")?,
                    write(Expected::Revision(1), "c")?,
                    write(Expected::Absent, "b")?,
                ],
                conflict("c", None)?,
            ),
            (
                vec![write(Expected::Absent, "b")?, write(Expected::Revision(1), "c")?],
                conflict("b", Some(2))?,
            ),
        ] {
            let entry = entry("registry.test");
            let outcome = env.db().registry_write(&writes, TimestampMs(9), Some(&entry)).await?;
            assert_eq!(outcome, want, "{writes:?}");
            assert_eq!(dump(env, &["share"]).await?, before, "{writes:?}");
        }
        assert!(actions(env).await?.is_none_or(|actions| actions.is_empty()));
        let right = [
            write(Expected::Revision(2), "b")?,
            gone(Expected::Revision(1), "a")?,
            write(Expected::Absent, "c")?,
        ];
        assert_eq!(written(env.db(), &right, 9).await?, 3);
        Ok(())
    }

    /// registry_write 3: the entry is kept with the writes, and one with a token that is known is not kept again.
    async fn the_entry_is_kept_with_the_writes(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? || !env.db().info().await?.keeps_audit {
            return Ok(());
        }
        let first = AuditEntry { token: Some(CommitToken::new("once")?), ..entry("key.make") };
        let writes = [put("api-key", "a", "{}")?];
        for revision in 1..=3 {
            let outcome = env.db().registry_write(&writes, TimestampMs(7), Some(&first)).await?;
            assert_eq!(outcome, RegistryOutcome::Written(revision));
        }
        env.db().registry_write(&writes, TimestampMs(7), Some(&entry("key.other"))).await?;
        written(env.db(), &writes, 7).await?;
        let filter = AuditFilter::default();
        let rows = env.db().audit_list(&filter, AuditOrder::OldestFirst, None, 10).await?.items;
        let kept: Vec<AuditEntry> = rows.into_iter().map(|row| row.entry).collect();
        assert_eq!(kept, [first.clone(), entry("key.other")]);
        let got = env.db().registry_get(&key("api-key", "a")?).await?;
        assert_eq!(got.map(|record| record.revision), Some(5));
        // It was of another call, say.
        env.db().audit_record(&AuditEntry { token: Some(CommitToken::new("two")?), ..entry("x") }).await?;
        let known = AuditEntry { token: Some(CommitToken::new("two")?), ..entry("y") };
        let delete = [delete("api-key", "a")?];
        let outcome = env.db().registry_write(&delete, TimestampMs(8), Some(&known)).await?;
        assert_eq!(outcome, RegistryOutcome::Written(6));
        assert_eq!(actions(env).await?, Some(texts(["key.make", "key.other", "x"])));
        Ok(())
    }

    /// registry_write 4: what is out of bounds is refused, and nothing is written.
    async fn writes_out_of_bounds_are_refused(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        written(env.db(), &[put("share", "a", "{}")?], 1).await?;
        let before = dump(env, &["share"]).await?;
        let good = || put("share", "good", "{}");
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(RecordWrite::MAX_BODY_BYTES - 7));
        let many: CaseResult<Vec<RecordWrite>> =
            (0..=RecordWrite::MOST).map(|n| put("share", &n.to_string(), "{}")).collect();
        let mut calls = vec![
            Vec::new(),
            many?,
            vec![good()?, good()?],
            vec![good()?, delete("share", "good")?],
            vec![good()?, expecting(Expected::Absent, delete("share", "b")?)],
            vec![good()?, expecting(Expected::Absent, delete("share", "a")?)],
        ];
        for body in ["", " ", "1", "\"a\"", "null", "[]", "{", "{}{}", "{\"a\":\u{1}}", "{'a':1}", &long] {
            calls.push(vec![good()?, put("share", "b", body)?]);
        }
        for writes in calls {
            for entry in [None, Some(entry("registry.test"))] {
                match env.db().registry_write(&writes, TimestampMs(2), entry.as_ref()).await.plain() {
                    Err(CatalogError::InvalidInput(_)) => {}
                    other => return fail(format_args!("{writes:?}: {other:?}")),
                }
            }
        }
        let bad = AuditEntry { action: "Not a word".to_owned(), ..entry("a") };
        match env.db().registry_write(&[good()?], TimestampMs(2), Some(&bad)).await.plain() {
            Err(CatalogError::InvalidInput(_)) => {}
            other => return fail(format_args!("{bad:?}: {other:?}")),
        }
        assert_eq!(dump(env, &["share"]).await?, before);
        assert!(actions(env).await?.is_none_or(|actions| actions.is_empty()));
        Ok(())
    }

    /// registry_write 6: of writers that expect the same one is written, in each round.
    async fn of_writers_that_expect_the_same_one_is_written(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        let mut expected = Expected::Absent;
        for round in 1..=8 {
            let mut calls = Vec::new();
            for n in 0..6 {
                let body = format!("{{\"round\":{round},\"n\":{n}}}");
                let all = [
                    put("lock", &format!("{round}-{n}"), "{}")?,
                    expecting(expected, put("lock", "held", &body)?),
                ];
                let db = env.shared();
                calls.push(async move {
                    let entry = entry("lock.take");
                    let at = TimestampMs(round);
                    retrying(|| db.registry_write(&all, at, Some(&entry))).await.map(|o| (body, o))
                });
            }
            let mut winners = Vec::new();
            for answer in together(calls).await? {
                match answer? {
                    (body, RegistryOutcome::Written(revision)) => winners.push((body, revision)),
                    (_, RegistryOutcome::Conflict { key, current }) => {
                        assert_eq!((key.name(), current), ("held", Some(round)));
                    }
                }
            }
            let held = env.db().registry_get(&key("lock", "held")?).await?;
            let held = held.map(|record| (record.body, record.revision));
            assert_eq!(winners, held.into_iter().collect::<Vec<_>>(), "round {round}");
            assert_eq!(winners.first().map(|(_, revision)| *revision), Some(round));
            expected = Expected::Revision(round);
        }
        // What came with a conflict is not there.
        let (revision, all) = dump(env, &["lock"]).await?;
        assert_eq!((revision, all.len()), (8, 9));
        assert!(actions(env).await?.is_none_or(|actions| actions.len() == 8));
        Ok(())
    }

    /// registry_write 6, registry_revision 1: writers of different records lose none, and no revision is given twice.
    async fn writers_of_different_records_lose_none(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        let (writers, rounds) = (6, 10);
        let mut calls = Vec::new();
        for writer in 0..writers {
            let db: Arc<dyn CatalogBackend> = env.shared();
            calls.push(async move {
                let mut revisions = Vec::new();
                for round in 0..rounds {
                    let name = |of: i64, n: i64| RecordKey::new("part", format!("{of}/{n}"));
                    let put = |key: RecordKey| RecordWrite {
                        key,
                        expected: Expected::Absent,
                        body: Some("{}".to_owned()),
                    };
                    let mut writes = vec![put(name(writer, round)?)];
                    if round > 0 {
                        // All share this one.
                        writes.push(RecordWrite {
                            expected: Expected::Any,
                            ..put(RecordKey::new("part", "shared")?)
                        });
                        writes.push(RecordWrite {
                            key: name(writer, round - 1)?,
                            expected: Expected::Any,
                            body: None,
                        });
                    }
                    match retrying(|| db.registry_write(&writes, TimestampMs(round), None)).await? {
                        RegistryOutcome::Written(revision) => revisions.push(revision),
                        conflict @ RegistryOutcome::Conflict { .. } => {
                            return Err(CatalogError::corrupt(format!("{conflict:?}")));
                        }
                    }
                }
                Result::<Vec<i64>>::Ok(revisions)
            });
        }
        let mut given = BTreeSet::new();
        let mut last = BTreeMap::new();
        for (writer, revisions) in together(calls).await?.into_iter().enumerate() {
            let revisions = revisions?;
            assert!(revisions.is_sorted(), "{revisions:?}");
            last.insert(format!("{writer}/{}", rounds - 1), revisions.last().copied());
            given.extend(revisions);
        }
        assert_eq!(given.into_iter().collect::<Vec<_>>(), (1..=writers * rounds).collect::<Vec<_>>());
        let (revision, all) = dump(env, &["part"]).await?;
        assert_eq!(revision, writers * rounds);
        let found: BTreeMap<String, Option<i64>> = all
            .iter()
            .filter(|record| record.key.name() != "shared")
            .map(|record| (record.key.name().to_owned(), Some(record.revision)))
            .collect();
        assert_eq!(found, last);
        Ok(())
    }

    /// contract 2, registry_write 6: a write whose answer was lost is there or not, and never half of it.
    async fn a_lost_answer_leaves_all_or_nothing(env: &Env) -> CaseResult {
        if !keeps_registry(env).await? {
            return Ok(());
        }
        for (n, fault) in (1..).zip([|| Fault::LoseAnswer, || Fault::LoseRequest, || Fault::Busy]) {
            let db = FaultyBackend::new(env.shared(), move |call| match (call.verb, call.nth) {
                (Verb::RegistryWrite, 0) => fault(),
                _ => Fault::None,
            });
            let before = env.db().registry_revision().await?;
            let names = [format!("{n}-a"), format!("{n}-b")];
            let mut writes = Vec::new();
            for name in &names {
                writes.push(expecting(Expected::Absent, put("share", name, "{}")?));
            }
            let entry = AuditEntry { token: Some(CommitToken::new(format!("t{n}"))?), ..entry("a") };
            let error = match db.registry_write(&writes, TimestampMs(1), Some(&entry)).await {
                Err(error) => error,
                Ok(outcome) => return fail(format_args!("{outcome:?}")),
            };
            let is_lost = error.write_state() == WriteState::Unknown;
            assert_eq!(is_lost, n < 3, "{error:?}");
            let outcome = db.registry_write(&writes, TimestampMs(1), Some(&entry)).await?;
            let want = if n == 1 {
                RegistryOutcome::Conflict { key: key("share", "1-a")?, current: Some(before + 1) }
            } else {
                RegistryOutcome::Written(before + 1)
            };
            assert_eq!(outcome, want);
            assert_eq!(env.db().registry_revision().await?, before + 1);
            for name in &names {
                let record = env.db().registry_get(&key("share", name)?).await?;
                assert_eq!(record.map(|record| record.revision), Some(before + 1));
            }
            let rows = usize::try_from(n).unwrap_or(0);
            assert!(actions(env).await?.is_none_or(|actions| actions.len() == rows));
        }
        Ok(())
    }
}
