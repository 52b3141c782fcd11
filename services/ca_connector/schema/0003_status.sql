-- Where the status of a certificate is read, taken from the certificate when it came, so that a round need not parse all.

alter table orders
    add column crl_url text,
    add column ocsp_url text,
    add column status_told_at timestamptz,
    add column issuer_id bytea;  -- SHA-256 over the issuer's name and key identifier: those of one issuer share a list

create index orders_of_issuer on orders (authority, issuer_id) where state = 'CONFIRMED' and status <> 'revoked';
create index orders_unknown on orders (authority) where state = 'UNKNOWN';
create index orders_renewed on orders (renews) where renews is not null;

grant update (crl_url, ocsp_url, issuer_id, status_told_at) on orders to $room;
