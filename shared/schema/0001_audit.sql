-- The audit chains of this room: each writer (one process) has its own. Leaves can be added and read, never changed.
-- hash = sha256('rakkan-audit/1' || chain id, length-prefixed || seq || previous hash || record), all bytes as stored.

create table audit_chains (
    chain_id text primary key,
    seq bigint not null default 0,
    head bytea not null
);

create table audit_leaves (
    chain_id text not null references audit_chains,
    seq bigint not null,
    previous_hash bytea not null,
    record bytea not null,
    hash bytea not null,
    primary key (chain_id, seq)
);

create function keep_chain_forward() returns trigger language plpgsql as $$
begin
    if new.chain_id <> old.chain_id or new.seq <> old.seq + 1 then
        raise exception 'an audit chain only grows, by one leaf at a time';
    end if;
    return new;
end $$;

create trigger chain_forward before update on audit_chains for each row execute function keep_chain_forward();

grant select, insert, update (seq, head) on audit_chains to $room;
grant select, insert on audit_leaves to $room;
