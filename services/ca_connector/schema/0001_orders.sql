-- Orders at certification authorities, what is to be revoked, and the CRLs of the authority in this room. An end is an
-- end, a certificate that came for an order is never exchanged for another, a CRL number is never used again.

create table orders (
    order_id text primary key,
    authority text not null,
    csr bytea not null,
    operation_id text not null,
    state text not null default 'SUBMITTED'
        check (state in ('SUBMITTED', 'PENDING', 'ISSUED', 'CONFIRMED', 'REJECTED')),
    handle bytea,
    not_before timestamptz,
    chain bytea[] not null default '{}',
    serial_number text,  -- of the certificate, in hex: what an operator of the CA will ask for
    reason text,
    submitted_at timestamptz not null,
    attempted_at timestamptz not null,  -- whoever works on the order moves it forward, so that no second one begins
    check (state <> 'PENDING' or (handle is not null and not_before is not null)),
    check (state not in ('ISSUED', 'CONFIRMED') or (cardinality(chain) > 0 and serial_number is not null)),
    check (state <> 'REJECTED' or reason is not null)
);

create index orders_in_hand on orders (attempted_at) where state in ('SUBMITTED', 'PENDING', 'ISSUED');

create function keep_orders_forward() returns trigger language plpgsql as $$
begin
    if (new.order_id, new.authority, new.csr, new.operation_id, new.submitted_at)
        is distinct from (old.order_id, old.authority, old.csr, old.operation_id, old.submitted_at) then
        raise exception 'what was ordered never changes';
    end if;
    if cardinality(old.chain) > 0
        and (new.chain, new.serial_number) is distinct from (old.chain, old.serial_number) then
        raise exception 'the certificate of an order is never exchanged';
    end if;
    if (old.state, new.state) not in (
        ('SUBMITTED', 'SUBMITTED'), ('SUBMITTED', 'PENDING'), ('SUBMITTED', 'ISSUED'), ('SUBMITTED', 'REJECTED'),
        ('PENDING', 'PENDING'), ('PENDING', 'ISSUED'), ('PENDING', 'REJECTED'),
        ('ISSUED', 'ISSUED'), ('ISSUED', 'CONFIRMED'), ('ISSUED', 'REJECTED')
    ) then
        raise exception 'an order cannot go from % to %', old.state, new.state;
    end if;
    return new;
end $$;

create trigger orders_forward before update on orders for each row execute function keep_orders_forward();

create table revocations (
    order_id text primary key references orders,
    reason smallint not null check (reason in (0, 1, 2, 3, 4, 5, 9, 10)),
    wanted_at timestamptz not null,
    attempted_at timestamptz not null,
    revoked_at timestamptz
);

create index revocations_in_hand on revocations (attempted_at) where revoked_at is null;

create function keep_revocations() returns trigger language plpgsql as $$
begin
    if (new.order_id, new.reason, new.wanted_at) is distinct from (old.order_id, old.reason, old.wanted_at)
        or (old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at) then
        raise exception 'a revocation is never taken back';
    end if;
    return new;
end $$;

create trigger revocations_kept before update on revocations for each row execute function keep_revocations();

create table revoked_certificates (
    authority text not null,
    serial_number text not null,  -- in hex: 20 bytes are more than a bigint
    reason smallint not null,
    revoked_at timestamptz not null,
    primary key (authority, serial_number)
);

create table crls (
    authority text not null,
    number bigint not null check (number > 0),
    crl bytea not null,
    this_update timestamptz not null,
    next_update timestamptz not null,
    primary key (authority, number)
);

grant select, insert on orders, revocations, revoked_certificates, crls to $room;
grant update (state, handle, not_before, chain, serial_number, reason, attempted_at) on orders to $room;
grant update (attempted_at, revoked_at) on revocations to $room;
