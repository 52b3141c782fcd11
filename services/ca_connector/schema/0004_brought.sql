-- A certificate that the SAM was brought past this room is issued and confirmed at once.

create or replace function keep_orders_forward() returns trigger language plpgsql as $$
begin
    if (new.order_id, new.authority, new.profile, new.csr, new.renews, new.origin, new.operation_id, new.submitted_at)
        is distinct from
        (old.order_id, old.authority, old.profile, old.csr, old.renews, old.origin, old.operation_id, old.submitted_at)
    then
        raise exception 'what was ordered never changes';
    end if;
    if cardinality(old.chain) > 0
        and (new.chain, new.serial_number) is distinct from (old.chain, old.serial_number) then
        raise exception 'the certificate of an order is never exchanged';
    end if;
    if old.status = 'revoked' and new.status <> 'revoked' then
        raise exception 'what is revoked stays revoked';
    end if;
    if old.state <> new.state and (old.state, new.state) not in (
        ('SUBMITTED', 'PENDING'), ('SUBMITTED', 'ISSUED'), ('SUBMITTED', 'REJECTED'), ('SUBMITTED', 'UNKNOWN'),
        ('SUBMITTED', 'CONFIRMED'),
        ('PENDING', 'ISSUED'), ('PENDING', 'REJECTED'), ('PENDING', 'UNKNOWN'), ('PENDING', 'CONFIRMED'),
        ('UNKNOWN', 'SUBMITTED'), ('UNKNOWN', 'PENDING'), ('UNKNOWN', 'ISSUED'), ('UNKNOWN', 'REJECTED'),
        ('UNKNOWN', 'CONFIRMED'),
        ('ISSUED', 'CONFIRMED'), ('ISSUED', 'REJECTED')
    ) then
        raise exception 'an order cannot go from % to %', old.state, new.state;
    end if;
    return new;
end $$;
