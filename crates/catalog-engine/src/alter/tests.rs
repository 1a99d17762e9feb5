//! Changes against the rules of the protocol, and against what Spark refuses.

use super::*;
use crate::schema::{FIELD_ID, PHYSICAL_NAME};

fn metadata(schema: &str, properties: &[(&str, &str)]) -> Metadata {
    let schema = StructType::from_text(schema).unwrap().to_json();
    let configuration: serde_json::Map<String, Value> =
        properties.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect();
    serde_json::from_value(json!({
        "id": "m", "format": {"provider": "parquet", "options": {}}, "schemaString": schema,
        "partitionColumns": ["day"], "configuration": configuration,
    }))
    .unwrap()
}

fn protocol(reader: i32, writer: i32) -> Protocol {
    Protocol {
        min_reader_version: reader,
        min_writer_version: writer,
        reader_features: None,
        writer_features: None,
    }
}

const SCHEMA: &str = "id long not null, day date, addr struct<zip:int, city:string>, \
                      tags array<struct<x:int>>, amount double";

fn run(
    protocol: &Protocol,
    metadata: &Metadata,
    domains: &[DomainMetadata],
    changes: &[Alteration],
) -> Result<Altered> {
    let mut n = 0_u128;
    let mut uuid = || {
        n += 1;
        Uuid::from_u128(n)
    };
    alter(&AlterBase { protocol, metadata, domains }, changes, &mut uuid)
}

fn path(text: &str) -> Vec<String> {
    text.split('.').map(str::to_owned).collect()
}

fn set(key: &str, value: &str) -> Alteration {
    Alteration::SetProperty { key: key.to_owned(), value: value.to_owned() }
}

fn rename(column: &str, name: &str) -> Alteration {
    Alteration::RenameColumn { column: path(column), name: name.to_owned() }
}

fn drop_column(column: &str) -> Alteration {
    Alteration::DropColumn { column: path(column) }
}

fn add(parent: &[&str], name: &str, data_type: DataType) -> Alteration {
    let parent = parent.iter().map(|part| (*part).to_owned()).collect();
    Alteration::AddColumn { parent, name: name.to_owned(), data_type, comment: None }
}

/// A table that maps columns.
fn mapped() -> (Protocol, Metadata) {
    let (base, before) = (protocol(1, 2), metadata(SCHEMA, &[]));
    let altered = run(&base, &before, &[], &[set("delta.columnMapping.mode", "name")]).unwrap();
    (altered.protocol.unwrap(), altered.metadata)
}

/// A parameter of the operation, which is JSON in a text.
fn parameter(altered: &Altered, key: &str) -> Value {
    serde_json::from_str(altered.parameters[key].as_str().unwrap()).unwrap()
}

#[track_caller]
fn refused(result: Result<Altered>, words: &[&str]) {
    let error = result.unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "'{word}' is not in: {error}");
    }
}

#[test]
fn mapping_gives_ids_and_keeps_the_names_in_files() {
    let (protocol, metadata) = mapped();
    assert_eq!((protocol.min_reader_version, protocol.min_writer_version), (2, 5));
    let schema = StructType::parse(&metadata.schema_string).unwrap();
    let mut ids = Vec::new();
    schema
        .visit_fields(&mut |_, field| {
            assert_eq!(field.metadata_text(PHYSICAL_NAME), Some(field.name.as_str()));
            ids.push(field.metadata[FIELD_ID].as_i64().unwrap());
            Ok(())
        })
        .unwrap();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(metadata.property("delta.columnMapping.maxColumnId"), Some("8"));
    for mode in ["none", "id"] {
        refused(
            run(&protocol, &metadata, &[], &[set("delta.columnMapping.mode", mode)]),
            &["cannot go from 'name'"],
        );
    }
    let unset = Alteration::UnsetProperty { key: "delta.columnMapping.mode".to_owned() };
    refused(run(&protocol, &metadata, &[], &[unset]), &["cannot be unset"]);
    refused(
        run(&protocol, &metadata, &[], &[set("delta.columnMapping.maxColumnId", "1")]),
        &["not set or unset by hand"],
    );
}

#[test]
fn a_dropped_column_s_name_and_id_do_not_come_back() {
    let (protocol, before) = mapped();
    let changes = [drop_column("amount"), add(&[], "amount", DataType::String)];
    let altered = run(&protocol, &before, &[], &changes).unwrap();
    let schema = StructType::parse(&altered.metadata.schema_string).unwrap();
    let field = schema.field("amount").unwrap();
    assert_eq!(field.physical_name(), "col-00000000-0000-0000-0000-000000000001");
    assert_eq!(field.metadata[FIELD_ID], 9);
    assert_eq!(altered.metadata.property("delta.columnMapping.maxColumnId"), Some("9"));
    assert_eq!(altered.operation, "ALTER TABLE");
}

#[test]
fn partition_columns_follow_their_new_name() {
    let (protocol, before) = mapped();
    let altered = run(&protocol, &before, &[], &[rename("day", "date of order")]).unwrap();
    assert_eq!(altered.metadata.partition_columns, ["date of order"]);
    let schema = StructType::parse(&altered.metadata.schema_string).unwrap();
    assert_eq!(schema.field("date of order").unwrap().physical_name(), "day");
    assert_eq!(altered.operation, "RENAME COLUMN");
    assert_eq!(
        Value::Object(altered.parameters),
        json!({ "oldColumnPath": "day", "newColumnPath": "date of order" })
    );
    refused(run(&protocol, &before, &[], &[drop_column("day")]), &["partitioned by it"]);
    refused(run(&protocol, &before, &[], &[rename("id", "DAY")]), &["'day' is there already"]);
    // Another case of the same name is another name.
    run(&protocol, &before, &[], &[rename("id", "ID")]).unwrap();
}

#[test]
fn without_mapping_columns_keep_their_names() {
    let (base, before) = (protocol(1, 2), metadata(SCHEMA, &[]));
    for change in [rename("id", "key"), drop_column("amount")] {
        refused(run(&base, &before, &[], &[change]), &["delta.columnMapping.mode=name"]);
    }
    refused(run(&base, &before, &[], &[add(&[], "a b", DataType::Long)]), &["cannot be in a name"]);
}

#[test]
fn nested_columns_are_added_where_their_path_leads() {
    let (base, before) = (protocol(1, 2), metadata(SCHEMA, &[]));
    let changes = [
        add(&["addr"], "street", DataType::String),
        add(&["tags", "element"], "y", DataType::Long),
    ];
    let altered = run(&base, &before, &[], &changes).unwrap();
    let schema = StructType::parse(&altered.metadata.schema_string).unwrap();
    assert_eq!(
        schema.to_string(),
        "id long not null, day date, addr struct<zip:integer,city:string,street:string>, \
         tags array<struct<x:integer,y:long>>, amount double"
    );
    assert_eq!((altered.operation, &altered.protocol), ("ADD COLUMNS", &None));
    assert_eq!(
        parameter(&altered, "columns"),
        json!([{"column":{"metadata":{},"name":"addr.street","nullable":true,"type":"string"}},{"column":{"metadata":{},"name":"tags.element.y","nullable":true,"type":"long"}}])
    );
    for (parent, words) in [
        (vec!["id"], ["no struct", "id"]),
        (vec!["tags"], ["element", "tags"]),
        (vec!["none"], ["unknown column", "none"]),
    ] {
        let change = add(&parent, "x", DataType::Long);
        refused(run(&base, &before, &[], &[change]), &words);
    }
    refused(run(&base, &before, &[], &[add(&[], "AMOUNT", DataType::Long)]), &["is there already"]);
    // What a type needs comes with it.
    let ntz = run(&base, &before, &[], &[add(&[], "at", DataType::TimestampNtz)]).unwrap();
    let protocol = ntz.protocol.unwrap();
    assert_eq!((protocol.min_reader_version, protocol.min_writer_version), (3, 7));
    assert_eq!(protocol.reader_features.unwrap(), ["timestampNtz"]);
    refused(run(&base, &before, &[], &[add(&[], "v", DataType::Void)]), &["void"]);
}

#[test]
fn what_mentions_a_column_keeps_it() {
    let (protocol, mut before) = mapped();
    let with = |key: &str, value: &str| {
        let mut metadata = before.clone();
        metadata.configuration.insert(key.to_owned(), Some(value.to_owned()));
        metadata
    };
    for (key, value) in [
        ("delta.constraints.c", "AMOUNT > 0"),
        ("delta.constraints.c", "`amount`>0"),
        ("delta.dataSkippingStatsColumns", "id,amount"),
    ] {
        let metadata = with(key, value);
        for change in [rename("amount", "sum"), drop_column("amount")] {
            refused(run(&protocol, &metadata, &[], &[change]), &["amount", "mentions it"]);
        }
        run(&protocol, &metadata, &[], &[rename("addr", "address")]).unwrap();
    }
    let mut schema = StructType::parse(&before.schema_string).unwrap();
    schema.fields[1]
        .metadata
        .insert("delta.generationExpression".to_owned(), Value::from("CAST(amount AS DATE)"));
    before.schema_string = schema.to_json();
    refused(run(&protocol, &before, &[], &[rename("amount", "sum")]), &["'day'", "mentions it"]);
}

#[test]
fn a_clustering_column_is_renamed_and_not_dropped() {
    let (protocol, before) = mapped();
    let domain = |text: &str| DomainMetadata {
        domain: "delta.clustering".to_owned(),
        configuration: text.to_owned(),
        removed: false,
    };
    let clustered =
        [domain(r#"{"clusteringColumns":[["addr","zip"]],"domainName":"delta.clustering"}"#)];
    for column in ["addr.zip", "addr"] {
        refused(run(&protocol, &before, &clustered, &[drop_column(column)]), &["clustered by it"]);
    }
    run(&protocol, &before, &clustered, &[drop_column("addr.city")]).unwrap();
    // Clustering names columns as files do, which stays.
    run(&protocol, &before, &clustered, &[rename("addr.zip", "code")]).unwrap();
    refused(
        run(&protocol, &before, &[domain("?")], &[drop_column("amount")]),
        &["clustered by it"],
    );
}

#[test]
fn something_stays() {
    let base = protocol(1, 2);
    let before = metadata("a struct<x:int>, day date", &[]);
    let mode = [set("delta.columnMapping.mode", "name")];
    let altered = run(&base, &before, &[], &mode).unwrap();
    let protocol = altered.protocol.unwrap();
    for column in ["a.x", "a"] {
        refused(
            run(&protocol, &altered.metadata, &[], &[drop_column(column)]),
            &["no column left"],
        );
    }
}

#[test]
fn properties_bring_their_features() {
    let base = protocol(1, 2);
    let before = metadata(SCHEMA, &[]);
    let features = |changes: &[Alteration], base: &Protocol| {
        let altered = run(base, &before, &[], changes).unwrap();
        let protocol = altered.protocol.unwrap();
        assert_eq!(altered.operation, "SET TBLPROPERTIES");
        (protocol.min_reader_version, protocol.reader_features, protocol.writer_features.unwrap())
    };
    let (reader, readers, writers) = features(&[set("delta.enableDeletionVectors", "true")], &base);
    assert_eq!((reader, readers), (3, Some(vec!["deletionVectors".to_owned()])));
    assert_eq!(writers, ["appendOnly", "invariants", "deletionVectors"]);
    let (reader, readers, writers) = features(&[set("delta.enableChangeDataFeed", "true")], &base);
    assert_eq!((reader, readers), (1, None));
    assert_eq!(writers, ["appendOnly", "invariants", "changeDataFeed"]);
    // A table that maps columns goes on doing so.
    let (reader, readers, writers) =
        features(&[set("delta.feature.v2Checkpoint", "supported")], &protocol(2, 5));
    assert_eq!(reader, 3);
    assert_eq!(readers.unwrap(), ["columnMapping", "v2Checkpoint"]);
    assert!(writers.contains(&"columnMapping".to_owned()), "{writers:?}");
    // Mapping on a table with a list of features, as all are that have the fence.
    let fenced = Protocol {
        writer_features: Some(vec!["appendOnly".to_owned(), "deltalakedb".to_owned()]),
        ..protocol(1, 7)
    };
    let (reader, readers, writers) = features(&[set("delta.columnMapping.mode", "name")], &fenced);
    assert_eq!((reader, readers), (3, Some(vec!["columnMapping".to_owned()])));
    assert_eq!(writers, ["appendOnly", "deltalakedb", "columnMapping"]);

    for (key, value, word) in [
        ("delta.enableRowTracking", "true", "row ids"),
        ("delta.enableIcebergCompatV2", "true", "Iceberg"),
        ("delta.universalFormat.enabledFormats", "iceberg", "Iceberg"),
        ("delta.feature.rowTracking", "supported", "row ids"),
        ("delta.feature.deltalakedb", "supported", "cannot get the feature"),
        ("delta.feature.columnMapping", "supported", "delta.columnMapping.mode=name"),
        ("delta.constraints.c", "id > 0", "by name"),
        ("delta.minWriterVersion", "7", "follows from"),
        ("delta.appendonly", "true", "spelt delta.appendOnly"),
        ("delta.appendOnly", "maybe", "true or false"),
        ("delta.checkpointInterval", "0", "whole number"),
        ("delta.logRetentionDuration", "30", "interval"),
        ("delta.logRetentionDuration", "interval 1 month", "interval"),
        ("delta.isolationLevel", "none", "Serializable"),
        ("", "x", "has a key"),
    ] {
        refused(run(&base, &before, &[], &[set(key, value)]), &[word]);
    }
    // Those of users are theirs.
    let altered = run(&base, &before, &[], &[set("team", "sales"), set("x", "")]).unwrap();
    assert_eq!(parameter(&altered, "properties"), json!({"team":"sales","x":""}));
    assert_eq!(altered.protocol, None);
}

#[test]
fn unset_constraints_comments_and_nullability() {
    let base = protocol(1, 3);
    let before = metadata(SCHEMA, &[("team", "sales"), ("delta.constraints.pos", "id > 0")]);
    let unset = |key: &str| Alteration::UnsetProperty { key: key.to_owned() };
    let altered = run(&base, &before, &[], &[unset("team")]).unwrap();
    assert_eq!(
        Value::Object(altered.parameters),
        json!({ "properties": "[\"team\"]", "ifExists": false })
    );
    refused(run(&base, &before, &[], &[unset("none")]), &["no property none", "team"]);
    refused(run(&base, &before, &[], &[unset("delta.constraints.pos")]), &["by name"]);
    let dropped = |name: &str| Alteration::DropConstraint { name: name.to_owned() };
    let altered = run(&base, &before, &[], &[dropped("POS")]).unwrap();
    assert_eq!(
        Value::Object(altered.parameters),
        json!({ "name": "POS", "expr": "id > 0", "existed": "true" })
    );
    refused(run(&base, &before, &[], &[dropped("none")]), &["'none'", "pos"]);
    let added = |name: &str, expression: &str| Alteration::AddConstraint {
        name: name.to_owned(),
        expression: expression.to_owned(),
    };
    refused(run(&base, &before, &[], &[added("Pos", "id > 1")]), &["already: id > 0"]);
    refused(run(&base, &before, &[], &[added("a b", "id > 1")]), &["letters"]);
    let altered =
        run(&protocol(1, 2), &metadata(SCHEMA, &[]), &[], &[added("p", "id > 1")]).unwrap();
    assert!(altered.checks_rows);
    assert_eq!(
        altered.protocol.unwrap().writer_features.unwrap(),
        ["appendOnly", "invariants", "checkConstraints"]
    );

    let comment = |text: Option<&str>| Alteration::Comment {
        column: path("ADDR.zip"),
        text: text.map(str::to_owned),
    };
    let altered = run(&base, &before, &[], &[comment(Some("post"))]).unwrap();
    assert_eq!(altered.operation, "CHANGE COLUMN");
    assert_eq!(
        parameter(&altered, "column"),
        json!({"metadata":{"comment":"post"},"name":"addr.zip","nullable":true,"type":"integer"})
    );
    let none = run(&base, &altered.metadata, &[], &[comment(None)]).unwrap();
    assert_eq!(none.metadata, before);
    let base = AlterBase { protocol: &base, metadata: &before, domains: &[] };
    let nullable = [Alteration::SetNullable { column: path("id") }];
    let altered = alter(&base, &nullable, &mut Uuid::nil).unwrap();
    assert!(altered.changes(&base));
    assert!(
        altered.metadata.schema_string.starts_with(
            r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":true"#
        )
    );
    let again = [Alteration::SetNullable { column: path("day") }];
    assert!(!alter(&base, &again, &mut Uuid::nil).unwrap().changes(&base));
    refused(alter(&base, &[], &mut Uuid::nil), &["nothing to change"]);
}
