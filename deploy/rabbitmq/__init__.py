"""RabbitMQ objects that follow from the topology table."""
