//! Servers with a certificate that the test has made.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::process::Command;

use deltalakedb_test_servers::{MariaDb, MariaDbOptions, Postgres, PostgresOptions, Software, Tls};

/// What a program prints, or, if it fails, what it complains of.
fn said(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn postgres_accepts_tls_and_may_insist_on_it() {
    if let Err(why) = Software::Postgres.check() {
        deltalakedb_test_servers::skip(&["postgres"], why);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::made_in(folder.path()).unwrap();
    let ca = tls.ca.clone().unwrap();
    let server = Postgres::start(PostgresOptions {
        tls: Some(tls),
        hba: Some(vec!["hostssl all all 127.0.0.1/32 scram-sha-256".to_owned()]),
        ..PostgresOptions::default()
    })
    .unwrap();
    let ask = |options: &str| {
        let url = format!("{}?{options}", server.superuser_url("postgres"));
        let question = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        said(Command::new("psql").args(["-XAtq", "-c", question, &url]))
    };
    let verified = format!("sslmode=verify-full&sslrootcert={}", ca.display());
    assert_eq!(ask(&verified).unwrap(), "t");
    assert!(ask("sslmode=disable").unwrap_err().contains("no encryption"));
}

#[test]
fn mariadb_accepts_tls_and_may_insist_on_it() {
    if let Err(why) = Software::MariaDb.check() {
        deltalakedb_test_servers::skip(&["mysql"], why);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::made_in(folder.path()).unwrap();
    let ca = tls.ca.clone().unwrap();
    let server = MariaDb::start(MariaDbOptions {
        tls: Some(tls),
        config: vec!["require_secure_transport=ON".to_owned()],
    })
    .unwrap();
    let ask = |options: &[String]| {
        let mut client = Command::new("mysql");
        client.args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "-BN"]);
        client.args([format!("--port={}", server.port()), format!("-u{}", server.superuser())]);
        client.env("MYSQL_PWD", server.password()).args(options);
        said(client.args(["-e", "SHOW STATUS LIKE 'Ssl_cipher'"]))
    };
    let verified = [format!("--ssl-ca={}", ca.display()), "--ssl".to_owned()];
    assert!(ask(&verified).unwrap().len() > "Ssl_cipher".len());
    // MySQL says why (error 3159), MariaDB 10.11 only that access is denied.
    assert!(ask(&["--skip-ssl".to_owned()]).is_err());
}
