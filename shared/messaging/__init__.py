"""How the rooms talk: sealed envelopes over RabbitMQ, one topology, jobs from an outbox."""
