//! Where the agent can be spoken to.

use super::*;

#[test]
fn the_control_interface_listens_on_a_private_socket_unless_told_otherwise() {
    let pipeline = parse(HELLO).unwrap();
    let socket = "/pipelines/sidestream-state/hello/.control/socket".into();
    let private =
        Control { listen: Listen::Unix(socket), tls: None, token_file: None, read_only: None };
    assert_eq!((pipeline.control, pipeline.http), (private, None));
    let pipeline = parse(&with(
        "\
control:
  listen: 0.0.0.0:9465
  tls: { certificate: tls/crt.pem, key: /keys/key.pem }
  token_file: token
http: { listen: 9464 }
",
    ))
    .unwrap();
    let tls = Tls {
        certificate: "/pipelines/tls/crt.pem".into(),
        key: "/keys/key.pem".into(),
        client_ca: None,
    };
    let listen = Listen::Tcp("0.0.0.0:9465".parse().unwrap());
    let token_file = Some("/pipelines/token".into());
    let tls = Some(tls);
    assert_eq!(pipeline.control, Control { listen, tls, token_file, read_only: None });
    assert_eq!(pipeline.http, Some("127.0.0.1:9464".parse().unwrap()));
    for (address, listen) in [
        ("off", Listen::Off),
        ("unix:run/control", Listen::Unix("/pipelines/run/control".into())),
        ("localhost:1", Listen::Tcp("127.0.0.1:1".parse().unwrap())),
        ("'[::1]:1'", Listen::Tcp("[::1]:1".parse().unwrap())),
    ] {
        let pipeline = parse(&with(&format!("control: {{ listen: {address} }}"))).unwrap();
        assert_eq!(pipeline.control.listen, listen);
    }
}

#[test]
fn beyond_this_machine_the_control_interface_asks_who_is_there() {
    const REACHED: &str = "1:20: `control.listen` is 10.0.0.1:9465, which others than this machine \
        reach; add `control.tls`, and `control.token_file` or `control.tls.client_ca`; or listen \
        on 127.0.0.1";
    let tls = "tls: { certificate: c, key: k }";
    let refused = ["", ", token_file: t", &format!(", {tls}")];
    for more in refused {
        check(&with(&format!("control: {{ listen: 10.0.0.1:9465{more} }}")), REACHED);
    }
    let mutual = "tls: { certificate: c, key: k, client_ca: r }";
    for more in [format!("{tls}, token_file: t"), mutual.to_owned()] {
        check(&with(&format!("control: {{ listen: 10.0.0.1:9465, {more} }}")), "");
    }
    check(
        &with("control: { listen: off, tls: { certificate: c, key: k } }"),
        "1:20: `control.tls` is for an address and a port; set `control.listen` to one, or remove \
         `control.tls`",
    );
    check(
        &with(&format!("control: {{ listen: unix:/{} }}", "x".repeat(107))),
        &format!(
            "1:20: the control socket's path /{} has more than 107 bytes; set `control.listen` to \
             `unix:` and a shorter path, or to `off`",
            "x".repeat(107)
        ),
    );
    check(
        &with("control: { read_only: { listen: 10.0.0.1:9466, token_file: t } }"),
        "1:33: `control.read_only.listen` is 10.0.0.1:9466, which others than this machine reach; add \
         `control.tls`, and `control.read_only.token_file` or `control.tls.client_ca`; or listen on \
         127.0.0.1",
    );
    let tls = "tls: { certificate: c, key: k }";
    let read_only = "read_only: { listen: 10.0.0.1:9466, token_file: t }";
    check(&with(&format!("control: {{ {tls}, {read_only} }}")), "");
    check(
        &with("control: { listen: unix:/a, read_only: { listen: unix:/a } }"),
        "1:50: `control.read_only.listen` and `control.listen` are the same; give each its own",
    );
    check(
        &with("control: { listens: off }"),
        "1:12: unknown key `listens`; did you mean `listen`?",
    );
    check(
        &with("http: { listen: here }"),
        "1:17: `http.listen` can't be `here`; write a port such as `9464`, or an address such as \
         `0.0.0.0:9464`",
    );
}
