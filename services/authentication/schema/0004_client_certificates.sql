-- Clients that prove themselves by a certificate (RFC 8705).

alter table clients
    add column certificate_name text check (length(certificate_name) <= 1024),
    drop constraint clients_method_check,
    drop constraint clients_check1,
    drop constraint clients_check2,
    add constraint clients_method_check
        check (method in ('client_secret', 'private_key_jwt', 'tls_client_auth', 'self_signed_tls_client_auth')),
    add constraint clients_keys_check
        check ((method in ('private_key_jwt', 'self_signed_tls_client_auth')) = (jwks is not null)),
    add constraint clients_certificate_check check ((method = 'tls_client_auth') = (certificate_name is not null)),
    add constraint clients_hardened_check check (profile <> 'hardened' or (method <> 'client_secret' and flags = '{}'));
